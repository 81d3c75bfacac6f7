package metainfo

import (
	"bytes"
	"crypto/sha256"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile is one torrent that somebody might send to do harm, and the class it
// falls into: refused with a reason, or accepted with exactly these files.
type hostile struct {
	name   string
	data   string
	reason string   // part of the error; empty if accepted
	files  []string // accepted: what shown returns
}

func bad(name, data, reason string) hostile           { return hostile{name, data, reason, nil} }
func good(name, data string, files ...string) hostile { return hostile{name, data, "", files} }

func corpus() []hostile {
	return slices.Concat(bencodeCorpus(), sizeCorpus(), nameCorpus(), treeCorpus(), hybridCorpus(), attrCorpus(), networkCorpus())
}

func bencodeCorpus() []hostile {
	ok := torrent(single())
	many := func(n int) string { return torrent(single("junk", raw("l"+strings.Repeat("0:", n)+"e"))) }
	keys := func(n int) string { // unsorted, all different
		var b strings.Builder
		for i := n; i > 0; i-- {
			b.WriteString(enc(strings.Repeat("k", 1+i%7)+string(rune('0'+i%10))+enc(i)) + "0:")
		}
		return b.String()
	}
	return []hostile{
		bad("empty", "", "empty input"),
		bad("one_byte", "d", "cut short"),
		bad("web_page", "\n <!DOCTYPE html><html>", "this is a web page, not a .torrent"),
		bad("web_page_bom", "\xef\xbb\xbf<html>", "this is a web page"),
		bad("magnet_link", "magnet:?xt=urn:btih:00", "this is a magnet link"),
		bad("gzip", "\x1f\x8b\x08\x00", "gzip"),
		bad("text", "hello world", "not a .torrent"),
		bad("list_on_top", "le", "not a .torrent"),
		bad("empty_dict", "de", "no info dict"),
		bad("info_is_list", "d4:infolee", "info is not a dict"),
		bad("info_empty", "d4:infodee", "no name"),
		bad("truncated_half", ok[:len(ok)/2], "cut short"),
		bad("truncated_last", ok[:len(ok)-1], "cut short"),
		bad("truncated_int", "d4:infoi12", "cut short"),
		bad("truncated_length", "d4:info12", "cut short"),
		good("newline_after", ok+"\r\n", "a 40000"),
		bad("garbage_after", ok+"x", "follow the .torrent"),
		bad("second_dict_after", ok+ok, "follow the .torrent"),
		bad("depth_lists_101", "d1:a"+nest("l", "e", 101)+"e", "nested deeper"),
		good("depth_lists_99", torrent(single(), "x", raw(nest("l", "e", 99))), "a 40000"),
		bad("depth_unclosed_1e7", "d1:a"+strings.Repeat("l", 10_000_000), "nested deeper"),
		bad("depth_dicts_1e6", strings.Repeat("d1:a", 1_000_000), "nested deeper"),
		bad("values_3e6", many(3_000_000), "more than 2500000 values"),
		good("values_2e6", many(2_000_000), "a 40000"),
		bad("lists_side_by_side_4e6", torrent(single("x", raw("l"+strings.Repeat("le", 4_000_000)+"e"))), "more than 2500000"),
		bad("size_33_mib", torrent(single("x", strings.Repeat("x", 33<<20))), "may have at most"),
		good("size_30_mib", torrent(single("x", strings.Repeat("x", 30<<20))), "a 40000"),
		bad("string_beyond_end", "d4:info99:x", "cut short"),
		bad("string_length_2_63", "d9223372036854775808:xe", "bad string length"),
		bad("string_length_2_64", "d18446744073709551617:xe", "bad string length"),
		bad("string_length_1000_digits", "d"+strings.Repeat("9", 1000)+":xe", "bad string length"),
		bad("string_length_zeros", "d0004:infodee", "bad string length"),
		bad("string_length_negative", "d-4:infodee", "not a string"),
		bad("int_empty", torrent(single("x", raw("ie"))), "not a plain 64-bit number"),
		bad("int_minus_zero", torrent(single("x", raw("i-0e"))), "not a plain"),
		bad("int_leading_zero", torrent(single("x", raw("i01e"))), "not a plain"),
		bad("int_plus", torrent(single("x", raw("i+1e"))), "not a plain"),
		bad("int_2_63", torrent(single("length", raw("i9223372036854775808e"))), "not a plain"),
		bad("int_1e6_digits", torrent(single("length", raw("i"+strings.Repeat("1", 1_000_000)+"e"))), "not a plain"),
		bad("int_underscore", torrent(single("length", raw("i4_0e"))), "not a plain"),
		bad("int_hex", torrent(single("length", raw("i0x10e"))), "not a plain"),
		bad("int_float", torrent(single("length", raw("i1.5e"))), "not a plain"),
		bad("key_is_int", "di1e1:ae", "not a string"),
		bad("key_without_value", "d4:infoe", "has no value"),
		bad("unknown_type", torrent(single("x", raw("n"))), "unexpected"),
		bad("duplicate_info", enc(pairs{"info", single(), "info", single()}), `"info" occurs twice`),
		bad("duplicate_key_apart", torrent(pairs{"length", 40000, "name", "a", "piece length", testPL, "pieces", hashes(40000), "length", 1}), `"length" occurs twice`),
		bad("duplicate_in_junk", torrent(single("x", raw("d1:ai1e1:ai2ee"))), `"a" occurs twice`),
		good("unsorted_keys", enc(pairs{"info", pairs{"pieces", hashes(40000), "piece length", testPL, "name", "a", "length", 40000}, "announce", "x"}), "a 40000"),
		good("unsorted_1e5_keys", torrent(single("x", raw("d"+keys(100_000)+"e"))), "a 40000"),
	}
}

func sizeCorpus() []hostile {
	const big = math.MaxInt64
	huge := func(lengths ...int) dict {
		files := list{}
		for i, n := range lengths {
			files = append(files, file(n, "f", string(rune('a'+i))))
		}
		return dict{"name": "m", "files": files, "piece length": testPL, "pieces": hashes(40000)}
	}
	return []hostile{
		bad("no_name", torrent(single("name", nil)), "no name"),
		bad("name_is_int", torrent(single("name", 1)), "no name"),
		bad("name_empty", torrent(single("name", "")), "no name"),
		bad("no_piece_length", torrent(single("piece length", nil)), "piece length is missing"),
		bad("piece_length_string", torrent(single("piece length", "16384")), "piece length is missing"),
		bad("piece_length_zero", torrent(single("piece length", 0)), "piece length 0: must be 16 KiB to 64 MiB"),
		bad("piece_length_negative", torrent(single("piece length", -16384)), "piece length -16384"),
		bad("piece_length_1", torrent(single("piece length", 1)), "piece length 1:"),
		bad("piece_length_4gib", torrent(single("piece length", 1<<32)), "must be 16 KiB"),
		bad("piece_length_2_62", torrent(single("piece length", 1<<62)), "must be 16 KiB"),
		good("piece_length_odd", torrent(single("piece length", 20001, "pieces", hashes(20000))), "a 40000"),
		bad("no_pieces", torrent(single("pieces", nil)), "pieces is missing"),
		bad("pieces_empty", torrent(single("pieces", "")), "0 piece hashes"),
		bad("pieces_list", torrent(single("pieces", list{"x"})), "pieces is not a string"),
		bad("pieces_19", torrent(single("pieces", hashes(40000)+strings.Repeat("h", 19))), "20-byte hashes"),
		bad("pieces_too_few", torrent(single("pieces", hashes(20000))), "2 piece hashes: 40000 bytes in pieces of 16384 need 3"),
		bad("pieces_too_many", torrent(single("pieces", hashes(60000))), "4 piece hashes"),
		bad("length_zero", torrent(single("length", 0, "pieces", "")), "no content"),
		bad("length_negative", torrent(single("length", -1)), "length -1 is negative"),
		bad("length_min", torrent(single("length", math.MinInt64)), "is negative"),
		bad("length_max", torrent(single("length", big)), "pieces: at most"),
		bad("length_string", torrent(single("length", "40000")), "length is missing or not a number"),
		bad("length_list", torrent(single("length", list{})), "length is missing or not a number"),
		bad("no_length", torrent(single("length", nil)), "neither length nor files"),
		bad("length_and_files", torrent(single("files", list{file(40000, "a")})), "both length and files"),
		bad("files_dict", torrent(single("length", nil, "files", dict{})), "files is not a list"),
		bad("files_empty", torrent(multi()), "no content"),
		bad("files_of_strings", torrent(single("length", nil, "files", list{"a"})), "file 0 has no path"),
		bad("files_all_empty", torrent(multi(file(0, "a"), file(0, "b"))), "no content"),
		bad("sum_overflow", torrent(huge(1<<62, 1<<62, 1<<62, 1<<62, 40000)), "overflow"),
		bad("sum_overflow_sane_total", torrent(huge(big, -big, 40000)), "is negative"),
		bad("sum_at_max", torrent(huge(big, 1)), "overflow"),
		bad("file_without_length", torrent(multi(dict{"path": list{"a"}}, file(40000, "b"))), "length is missing"),
		bad("file_negative", torrent(multi(file(-1, "a"), file(40000, "b"))), "is negative"),
		good("zero_length_files", torrent(multi(file(0, "a"), file(40000, "b"), file(0, "c"))), "a 0", "b 40000", "c 0"),
		good("1e5_files", torrent(multi(manyFiles(100_000)...)), numbered(100_000)...),
		bad("meta_version_3", torrent(single("meta version", 3)), "meta version 3"),
		bad("meta_version_string", torrent(single("meta version", "2")), "meta version is not a number"),
		good("meta_version_1", torrent(single("meta version", 1)), "a 40000"),
		bad("pieces_2_21", torrent(single("length", 1<<36, "pieces", "")), "4194304 pieces"),
	}
}

func manyFiles(n int) (files []any) {
	for _, s := range numbered(n) {
		files = append(files, file(1, "dir", "x"+s[5:len(s)-2]))
	}
	return files
}

func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = "dir/x" + string([]byte{'0' + byte(i/10000%100/10), '0' + byte(i/10000%10), '0' + byte(i/1000%10), '0' + byte(i/100%10), '0' + byte(i/10%10), '0' + byte(i%10)}) + " 1"
	}
	return names
}

// nameCorpus: names are passed through untouched, whatever they are; only a file
// without any is refused.
func nameCorpus() []hostile {
	cases := []hostile{
		bad("path_missing", torrent(multi(dict{"length": 40000})), "file 0 has no path"),
		bad("path_empty", torrent(multi(file(40000))), "file 0 has no path"),
		bad("path_string", torrent(multi(dict{"length": 40000, "path": "a/b"})), "has no path"),
		bad("path_of_ints", torrent(multi(dict{"length": 40000, "path": list{1}})), "has no path"),
		bad("path_all_empty", torrent(multi(file(40000, "", ""))), "has no path"),
		good("path_some_empty", torrent(multi(file(40000, "", "a", ""))), "/a/ 40000"),
		good("path_utf8_preferred", torrent(multi(file(40000, "x").with("path.utf-8", list{"ü"}))), "ü 40000"),
		good("path_utf8_broken", torrent(multi(file(40000, "x").with("path.utf-8", list{7}))), "x 40000"),
		good("name_utf8_preferred", torrent(single("name.utf-8", "ü")), "ü 40000"),
		good("same_path_twice", torrent(multi(file(40000, "a"), file(1, "a"))), "a 40000", "a 1"),
		good("file_and_directory", torrent(multi(file(40000, "a"), file(1, "a", "b"))), "a 40000", "a/b 1"),
		good("path_1e5_deep", torrent(multi(file(40000, slices.Repeat([]string{"d"}, 100_000)...))), strings.Repeat("d/", 99_999)+"d 40000"),
	}
	for name, s := range map[string]string{
		"dotdot": "..", "dot": ".", "slash": "a/b", "absolute": "/etc/passwd", "nul": "a\x00b", "newline": "a\nb",
		"escape": "\x1b[2J", "bidi": "a\u202egpj.exe", "not_utf8": "\xff\xfe", "mebibyte": strings.Repeat("n", 1<<20),
		"backslash": `..\..\x`, "dev": "/dev/null", "con": "CON", "spaces": "   ", "percent": "%2e%2e%2f",
	} {
		cases = append(cases,
			good("name_"+name, torrent(single("name", s)), s+" 40000"),
			good("path_"+name, torrent(multi(file(40000, s, "x"))), s+"/x 40000"))
	}
	return cases
}

func treeCorpus() []hostile {
	deep := func(n int) string {
		return torrent(v2(raw(strings.Repeat("d1:d", n) + enc(leaf(1)) + strings.Repeat("e", n))))
	}
	crowd := func(depth, n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(enc("x"+enc(i+1_000_000)) + "d0:d6:lengthi0eee")
		}
		return torrent(v2(raw(strings.Repeat("d1:d", depth) + "d" + b.String() + "e" + strings.Repeat("e", depth))))
	}
	layer := strings.Repeat("l", 96)
	root := merkleRoot([]byte(layer), padNode(testPL))
	layers := func(v any) string {
		return torrent(v2(dict{"a": leaf(40000, "pieces root", string(root[:]))}), "piece layers", v)
	}
	return []hostile{
		good("v2_single", torrent(v2(dict{"v": leaf(40000)})), "v 40000"),
		good("v2_two", torrent(v2(dict{"a": leaf(1), "b": dict{"c": leaf(40000)}})), "a 1", "b/c 40000"),
		good("v2_empty_file", torrent(v2(dict{"a": leaf(0), "b": leaf(1)})), "a 0", "b 1"),
		good("v2_empty_directory", torrent(v2(dict{"a": dict{}, "b": leaf(1)})), "b 1"),
		good("v2_depth_90", deep(90), strings.Repeat("d/", 89)+"d 1"),
		bad("v2_depth_200000", deep(200_000), "nested deeper"),
		bad("v2_no_tree", torrent(v2(dict{}, "file tree", nil)), "file tree is missing"),
		bad("v2_tree_list", torrent(v2(list{})), "file tree is missing or not a dict"),
		bad("v2_tree_empty", torrent(v2(dict{})), "file tree has no files"),
		bad("v2_tree_without_version", torrent(v2(dict{"a": leaf(1)}, "meta version", nil)), "without a meta version"),
		bad("v2_tree_in_version_1", torrent(v2(dict{"a": leaf(1)}, "meta version", 1)), "meta version 1"),
		bad("v2_entry_string", torrent(v2(dict{"a": "x"})), "not a dict"),
		bad("v2_leaf_string", torrent(v2(dict{"a": dict{"": "x"}})), "not a dict"),
		bad("v2_empty_name", torrent(v2(dict{"": leaf(1)})), "empty name"),
		bad("v2_file_and_directory", torrent(v2(dict{"a": dict{"": dict{"length": 0}, "b": leaf(1)}})), "empty name"),
		bad("v2_unsorted", torrent(v2(pairs{"b", leaf(1), "a", leaf(1)})), "not sorted"),
		bad("v2_duplicate", torrent(v2(pairs{"a", leaf(1), "a", leaf(1)})), "occurs twice"),
		bad("v2_no_length", torrent(v2(dict{"a": leaf(1, "length", nil)})), "length is missing"),
		bad("v2_negative", torrent(v2(dict{"a": leaf(1, "length", -1)})), "is negative"),
		bad("v2_root_missing", torrent(v2(dict{"a": leaf(1, "pieces root", nil)})), "pieces root is missing"),
		bad("v2_root_short", torrent(v2(dict{"a": leaf(1, "pieces root", strings.Repeat("r", 31))})), "not 32 bytes"),
		bad("v2_root_long", torrent(v2(dict{"a": leaf(1, "pieces root", strings.Repeat("r", 33))})), "not 32 bytes"),
		bad("v2_root_int", torrent(v2(dict{"a": leaf(1, "pieces root", 1)})), "not 32 bytes"),
		bad("v2_root_of_empty", torrent(v2(dict{"a": leaf(0, "pieces root", strings.Repeat("r", 32)), "b": leaf(1)})), "in an empty file"),
		bad("v2_piece_length_odd", torrent(v2(dict{"a": leaf(1)}, "piece length", 20000)), "power of two"),
		bad("v2_all_empty", torrent(v2(dict{"a": leaf(0)})), "no content"),
		bad("v2_length_max", torrent(v2(dict{"a": leaf(math.MaxInt64)})), "pieces: at most"),
		bad("v2_sum_overflow", torrent(v2(dict{"a": leaf(math.MaxInt64), "b": leaf(1)})), "overflow"),
		bad("v2_align_overflow", torrent(v2(dict{"a": leaf(math.MaxInt64 - 5), "b": leaf(1)})), "overflow"),
		bad("v2_2_48_pieces", torrent(v2(dict{"a": leaf(1 << 62)})), "pieces: at most"),
		bad("v2_crowd_in_deep_directory", crowd(90, 50_000), "names in all paths"),
		bad("v2_v1_files_without_pieces", torrent(v2(dict{"a": leaf(1)}, "length", 1)), "v1 files without pieces"),
		bad("v2_pad", torrent(v2(dict{"a": leaf(1, "attr", "p")})), "pad file in a v2 file tree"),
		good("v2_names_raw", torrent(v2(dict{"..": dict{"/x": leaf(1)}})), "..//x 1"),
		good("layers_right", layers(dict{string(root[:]): layer}), "a 40000"),
		good("layers_absent", layers(nil), "a 40000"),
		good("layers_of_nobody", layers(dict{strings.Repeat("z", 32): "x"}), "a 40000"),
		bad("layers_wrong", layers(dict{string(root[:]): strings.Repeat("m", 96)}), "does not match its pieces root"),
		bad("layers_short", layers(dict{string(root[:]): layer[:64]}), "piece layer of 64 bytes, must be 96"),
		bad("layers_odd", layers(dict{string(root[:]): layer[:95]}), "piece layer of 95 bytes"),
		bad("layers_empty", layers(dict{string(root[:]): ""}), "piece layer of 0 bytes"),
		bad("layers_list", layers(list{}), "piece layers is not a dict"),
		bad("layers_key_short", layers(dict{"r": layer}), "32-byte root"),
		bad("layers_value_int", layers(dict{string(root[:]): 1}), "32-byte root"),
		good("layers_in_v1_ignored", torrent(single(), "piece layers", list{}), "a 40000"),
	}
}

func hybridCorpus() []hostile {
	pad := func(n int) dict { return file(n, ".pad", "x").with("attr", "p") }
	tree := dict{"a": leaf(10000), "b": leaf(40000)}
	return []hostile{
		good("hybrid", torrent(hybrid(tree, file(10000, "a"), pad(6384), file(40000, "b"))), "a 10000", "b 40000"),
		good("hybrid_pad_at_end", torrent(hybrid(tree, file(10000, "a"), pad(6384), file(40000, "b"), pad(9152))), "a 10000", "b 40000"),
		good("hybrid_single", torrent(single("meta version", 2, "file tree", dict{"a": leaf(40000)})), "a 40000"),
		bad("hybrid_single_name", torrent(single("meta version", 2, "file tree", dict{"b": leaf(40000)})), "hybrid: v1 has"),
		bad("hybrid_mismatch_name", torrent(hybrid(tree, file(10000, "a"), pad(6384), file(40000, "c"))), `hybrid: v1 has file "c" where v2 has file "b"`),
		bad("hybrid_mismatch_length", torrent(hybrid(tree, file(10000, "a"), pad(6384), file(40001, "b"))), "40001 bytes in v1 and 40000 in v2"),
		bad("hybrid_no_pad", torrent(hybrid(tree, file(10000, "a"), file(40000, "b"))), "begins at 10000 in v1 and at 16384 in v2"),
		bad("hybrid_short_pad", torrent(hybrid(tree, file(10000, "a"), pad(1), file(40000, "b"))), "begins at"),
		bad("hybrid_order", torrent(hybrid(tree, file(40000, "b"), pad(9152), file(10000, "a"))), "hybrid: v1 has"),
		bad("hybrid_v1_extra", torrent(hybrid(tree, file(10000, "a"), pad(6384), file(40000, "b"), file(1, "c"))), "only in the v1 list"),
		bad("hybrid_v2_extra", torrent(hybrid(tree, file(10000, "a"))), "only in the v2 tree"),
		bad("hybrid_symlink_differs", torrent(hybrid(dict{"a": leaf(1), "l": leaf(0, "attr", "l", "symlink path", list{"a"})},
			file(1, "a"), file(0, "l").with("attr", "l", "symlink path", list{"b"}))), "different symlink"),
		bad("hybrid_pieces_short", torrent(hybrid(dict{"a": leaf(40000)}, file(40000, "a")).with("pieces", hashes(1))), "1 piece hashes"),
		bad("hybrid_pieces_int", torrent(hybrid(dict{"a": leaf(40000)}, file(40000, "a")).with("pieces", 1)), "pieces is not a string"),
	}
}

func attrCorpus() []hostile {
	link := func(length any, target any) dict {
		return dict{"attr": "l", "path": list{"l"}}.with("length", length, "symlink path", target)
	}
	b := file(40000, "b")
	return []hostile{
		good("attr_exec_hidden", torrent(multi(b.with("attr", "xh"))), "b 40000 x h"),
		good("attr_unknown", torrent(multi(b.with("attr", "zq"))), "b 40000"),
		good("attr_int", torrent(multi(b.with("attr", 1))), "b 40000"),
		good("attr_single", torrent(single("attr", "x")), "a 40000 x"),
		good("pad_attr", torrent(multi(b, file(7, "p").with("attr", "p"))), "b 40000"),
		good("pad_bitcomet", torrent(multi(b, file(7, "_____padding_file_0_if you see this file, please update"))), "b 40000"),
		good("pad_directory", torrent(multi(b, file(7, ".pad", "7"))), "b 40000"),
		good("pad_lookalike", torrent(multi(b, file(7, ".pad", "8"))), "b 40000", ".pad/8 7"),
		bad("pad_only", torrent(multi(b.with("attr", "p"))), "all its files are padding"),
		good("symlink", torrent(multi(b, link(0, list{"b"}))), "b 40000", "l -> b"),
		good("symlink_no_length", torrent(multi(b, link(nil, list{"b"}))), "b 40000", "l -> b"),
		good("symlink_outside_raw", torrent(multi(b, link(0, list{"..", "..", "etc", "passwd"}))), "b 40000", "l -> ../../etc/passwd"),
		good("symlink_to_itself", torrent(multi(b, link(0, list{"l"}))), "b 40000", "l -> l"),
		bad("symlink_with_length", torrent(multi(b, link(5, list{"b"}))), "symlink with a length"),
		bad("symlink_negative_length", torrent(multi(b, link(-5, list{"b"}))), "symlink with a length"),
		bad("symlink_without_target", torrent(multi(b, link(0, nil))), "symlink without a target"),
		bad("symlink_target_empty", torrent(multi(b, link(0, list{}))), "symlink without a target"),
		bad("symlink_target_string", torrent(multi(b, link(0, "b"))), "symlink without a target"),
		bad("symlink_alone", torrent(multi(link(0, list{"b"}))), "no content"),
		good("v2_symlink", torrent(v2(dict{"a": leaf(1), "l": leaf(0, "attr", "l", "symlink path", list{"a"})})), "a 1", "l -> a"),
	}
}

// networkCorpus: nothing of this is a reason to refuse.
func networkCorpus() []hostile {
	var cases []hostile
	for name, kv := range map[string][]any{
		"announce_int":         {"announce", 1},
		"announce_file":        {"announce", "file:///etc/passwd"},
		"announce_control":     {"announce", "http://h/\r\nX: y"},
		"announce_mebibyte":    {"announce", "http://h/" + strings.Repeat("a", 1<<20)},
		"announce_bad_port":    {"announce", "udp://h:99999"},
		"announce_list_string": {"announce-list", "http://h/a"},
		"announce_list_flat":   {"announce-list", list{"http://h/a"}},
		"announce_list_mixed":  {"announce-list", list{list{1, dict{}, list{}}, 5}},
		"announce_list_1e5":    {"announce-list", list{list(slices.Repeat([]any{"http://h/a"}, 100_000))}},
		"nodes_string":         {"nodes", "1.2.3.4:5"},
		"nodes_bad":            {"nodes", list{list{"h"}, list{"h", "1"}, list{"h", 0}, list{"h", 70000}, list{1, 1}, list{"a b", 1}, 3}},
		"url_list_dict":        {"url-list", dict{}},
		"url_list_bad":         {"url-list", list{1, "gopher://h", "http://", "\x00"}},
		"date_max":             {"creation date", math.MaxInt64},
		"date_min":             {"creation date", math.MinInt64},
		"date_string":          {"creation date", "today"},
		"comment_list":         {"comment", list{}},
		"comment_mebibyte":     {"comment", strings.Repeat("\xff", 1<<20)},
		"unknown_keys":         {"azureus_properties", dict{"dht_backup_enable": 1}},
	} {
		cases = append(cases, good("net_"+name, torrent(single(), kv...), "a 40000"))
	}
	return append(cases, good("net_private_string", torrent(single("private", "1")), "a 40000"))
}

func TestHostileTorrents(t *testing.T) {
	cases := corpus()
	if len(cases) < 100 {
		t.Fatalf("the corpus has shrunk to %d torrents", len(cases))
	}
	t.Logf("%d hostile torrents", len(cases))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			m, err := Parse([]byte(c.data))
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			// All that was ever allocated, so an upper bound of what was held.
			if used, most := after.TotalAlloc-before.TotalAlloc, uint64(160<<20+12*len(c.data)); used > most {
				t.Errorf("allocated %d MiB for %d bytes", used>>20, len(c.data))
			}
			checkOutcome(t, c, m, err)
		})
	}
}

func checkOutcome(t *testing.T, c hostile, m *Meta, err error) {
	t.Helper()
	if c.reason != "" {
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Fatalf("error %v, want one with %q", err, c.reason)
		}
		if s := err.Error(); len(s) > 400 || strings.ContainsAny(s, "\n\r\x00\x1b") {
			t.Errorf("error is not one clean line: %q", s)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := shown(m.Info); !slices.Equal(got, c.files) {
		t.Errorf("files %.300q, want %.300q", got, c.files)
	}
	checkInvariants(t, m)
}

// checkInvariants holds for everything that Parse lets through.
func checkInvariants(t *testing.T, m *Meta) {
	t.Helper()
	in := m.Info
	var at int64
	for _, f := range in.Files {
		if f.Offset != at && f.Length > 0 || f.Length < 0 || len(f.Path) == 0 {
			t.Fatalf("file %q at %d+%d, expected at %d", f.Path, f.Offset, f.Length, at)
		}
		at += f.Length
	}
	var sum int64
	for n := range in.NumPieces() {
		sum += in.PieceSize(n)
	}
	if at != in.Length || sum != in.Length || in.Length <= 0 {
		t.Fatalf("files have %d bytes, pieces %d, Length is %d", at, sum, in.Length)
	}
	in.PieceHash(in.NumPieces() - 1)
	if in.V2 && in.HashV2 != sha256.Sum256(in.Raw) {
		t.Error("v2 hash is not that of Raw")
	}
	again, err := Parse(m.Encode())
	if err != nil {
		t.Fatalf("Parse refuses what Encode wrote: %v", err)
	}
	if !bytes.Equal(again.Info.Raw, in.Raw) || again.Info.Hash != in.Hash {
		t.Error("Encode changed the info dict")
	}
	if !bytes.Equal(again.Encode(), m.Encode()) {
		t.Error("a second round trip differs from the first")
	}
	g, err := ParseMagnet(m.Magnet().String())
	if err != nil || g.Hash != in.Hash || g.HashV2 != in.HashV2 {
		t.Errorf("magnet %v, %v", g, err)
	}
}

// The same info dicts from a peer meet the same checks.
func TestHostileMetadata(t *testing.T) {
	for _, c := range corpus() {
		v, _, err := scan([]byte(c.data), torrentLimits)
		if err != nil || v.get("info").kind() != 'd' || strings.HasPrefix(c.name, "layers_") || strings.HasSuffix(c.name, "_after") {
			continue
		}
		in, err := ParseInfo(v.get("info").raw())
		if (err == nil) != (c.reason == "") {
			t.Errorf("%s: %v, want %q", c.name, err, c.reason)
		}
		if err == nil && !slices.Equal(shown(in), c.files) {
			t.Errorf("%s: files differ", c.name)
		}
	}
	if _, err := ParseInfo([]byte(enc(single()) + "\n")); err == nil {
		t.Error("bytes after the info dict accepted")
	}
	if _, err := ParseInfo(make([]byte, MaxInfoSize+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
}
