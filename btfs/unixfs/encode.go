package unixfs

import "encoding/binary"

// encodeLeaf makes the block that BTFS makes of some bytes of a file. tail is what its
// UnixFS holds after them: permissions and time.
func encodeLeaf(t Type, b, tail []byte) []byte {
	var u []byte
	u = binary.AppendUvarint(append(u, 1<<3|wireVarint), uint64(t))
	u = append(binary.AppendUvarint(append(u, 2<<3|wireBytes), uint64(len(b))), b...)
	u = binary.AppendUvarint(append(u, 3<<3|wireVarint), uint64(len(b)))
	u = append(u, tail...)
	return append(binary.AppendUvarint([]byte{1<<3 | wireBytes}, uint64(len(u))), u...)
}

// leafTail is what a leaf has after the size of its bytes.
func leafTail(b []byte) []byte {
	data, links, err := decodePB(b)
	if err != nil || len(links) > 0 {
		return nil
	}
	for m := (message{data}); ; {
		f, ok, err := m.next()
		if err != nil || !ok {
			return nil
		}
		if f.number == 3 {
			return m.b
		}
	}
}
