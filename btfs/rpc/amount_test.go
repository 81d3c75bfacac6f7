package rpc

import (
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"github.com/btmount/btmount/btfs/source"
)

func callOf(command string) source.Call { return source.Call{Command: command} }

func TestParseAmount(t *testing.T) {
	for text, want := range map[string]string{
		"1WBTT": "1000000000000000000", "0.000000000000000001 wbtt": "1", "12.5USDT": "12500000", "0TRX": "0",
		"115792089237316195423570985008687907853269984665640564039457.584007913129639935WBTT": "115792089237316195423570985008687907853269984665640564039457584007913129639935",
		"115792089237316195423570985008687907853269984665640564039457.584007913129639936WBTT": "",
		"": "", "1": "", "1e18WBTT": "", "-1WBTT": "", "0x10WBTT": "", "1.0000000000000000001WBTT": "", "1.0000001TRX": "", "1.WBTT": "", ".5WBTT": "",
		"1 BTT": "", "1,5WBTT": "", "+1WBTT": "", "∞WBTT": "", "1WBTT1": "", strings.Repeat("9", 79) + "WBTT": "",
	} {
		a, token, err := ParseAmount(text)
		if (err != nil) != (want == "") || err == nil && a.String() != want {
			t.Errorf("%q: %v %s, %v, want %q", text, a, token, err, want)
		}
		if err == nil {
			if again, _, err := ParseAmount(a.In(token)); err != nil || again.Cmp(a) != 0 {
				t.Errorf("%q: %q, %v", text, a.In(token), err)
			}
		}
	}
}

func TestAmountJSON(t *testing.T) {
	for text, want := range map[string]string{
		"123456789012345678901234567": "123456789012345678901234567", `"7"`: "7", "-5": "-5", "null": "0",
		"1.5": "", "1e3": "", `""`: "", "true": "", "{}": "", `"0x1"`: "", strings.Repeat("9", 78): "", strings.Repeat("9", 100000): "",
	} {
		var a Amount
		err := json.Unmarshal([]byte(text), &a)
		if (err != nil) != (want == "") || err == nil && a.String() != want {
			t.Errorf("%.20q: %v, %v", text, a, err)
		}
	}
	if b, err := json.Marshal(Units(7)); string(b) != `"7"` {
		t.Error(string(b), err)
	}
	if got := (Amount{big.NewInt(-1500)}).In("TRX"); got != "-0.0015 TRX" {
		t.Error(got)
	}
}

// Numbers and texts of a node are exact, or refused; nothing of it crashes.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{`{"Price":1e400}`, `{"Price":"12","Host":"\u001b"}`, `{"Price":` + strings.Repeat("9", 90) + `}`, `[`, `{"Shards":{"a":{"Price":null,"Status":3}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v struct {
			Price  Amount
			Host   Text
			Shards map[string]struct {
				Price  Amount
				Status Text
			}
		}
		if decode(b, &v) != nil {
			return
		}
		if v.Price.int().BitLen() > 256 || strings.ContainsAny(string(v.Host), "\n\x1b\r\x00") || len(v.Host) > 2*maxText {
			t.Errorf("%v %q", v.Price, v.Host)
		}
	})
}
