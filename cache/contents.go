package cache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// The file contents in the folder of an object names what its bodies hold, so that an object
// that is opened later finds them: records of one size, appended; what does not match its
// checksum is not there. The checksum covers the key, so that no record passes in another
// folder. It goes when the folder goes, which is why there is not one file for each content.
//
// It is believed as the journal is: whoever can write the one can write the other. What is wrong
// with it otherwise leads to nothing that is not shared, or hashed.
const (
	contentsFile = "contents"
	contentSize  = 32 + 4 + 4 + 4 + 4 // content, file, first unit, flags, CRC-32C

	flagShared = 1 // the file has, or had, several links: the journal does not know all of it
)

// content is one record: which file of an object holds it.
type content struct {
	id     ContentID
	file   uint32 // its number in the layout
	first  uint32 // its first unit
	shared bool
}

// holder is an object that has a content on disk, when somebody looked.
type holder struct {
	key string
	content
}

// contents are the holders of all objects.
type contents struct {
	mu sync.Mutex // a leaf; held while a record is appended
	of map[ContentID][]holder
}

func (c content) append(b []byte, key string) []byte {
	at, flags := len(b), uint32(0)
	if c.shared {
		flags = flagShared
	}
	b = append(b, c.id[:]...)
	b = binary.LittleEndian.AppendUint32(b, c.file)
	b = binary.LittleEndian.AppendUint32(b, c.first)
	b = binary.LittleEndian.AppendUint32(b, flags)
	return binary.LittleEndian.AppendUint32(b, contentSum(b[at:], key))
}

func contentSum(b []byte, key string) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, b)
}

// parseContents returns what the records in b say, of each file the last.
func parseContents(b []byte, key string) map[uint32]content {
	all := map[uint32]content{}
	for ; len(b) >= contentSize; b = b[contentSize:] {
		if contentSum(b[:contentSize-4], key) != binary.LittleEndian.Uint32(b[contentSize-4:]) {
			continue
		}
		c := content{
			id:     ContentID(b[:32]),
			file:   binary.LittleEndian.Uint32(b[32:]),
			first:  binary.LittleEndian.Uint32(b[36:]),
			shared: binary.LittleEndian.Uint32(b[40:])&flagShared != 0,
		}
		all[c.file] = c
	}
	return all
}

// readContents reads the list of a folder.
func (s *Store) readContents(key string) map[uint32]content {
	f, err := os.OpenFile(filepath.Join(s.folder(key), contentsFile), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > 64<<20 {
		return nil
	}
	b := make([]byte, st.Size())
	n, _ := f.ReadAt(b, 0)
	return parseContents(b[:n], key)
}

func (s *Store) folder(key string) string { return filepath.Join(s.cfg.Dir, "objects", key) }

// learn remembers who holds what.
func (c *contents) learn(key string, list map[uint32]content) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range list {
		c.learnLocked(holder{key, v})
	}
}

func (c *contents) learnLocked(h holder) {
	all := c.of[h.id]
	if i := slices.IndexFunc(all, func(v holder) bool { return v.key == h.key && v.file == h.file }); i >= 0 {
		all[i] = h
		return
	}
	c.of[h.id] = append(all, h)
}

// holders returns who may hold a content. Those of whom keep is not true are forgotten.
func (c *contents) holders(id ContentID, keep func(key string) bool) []holder {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.DeleteFunc(c.of[id], func(h holder) bool { return !keep(h.key) })
	if len(all) == 0 {
		delete(c.of, id)
	} else {
		c.of[id] = all
	}
	return slices.Clone(all)
}

// list appends a record to the list of a folder.
func (s *Store) list(key string, c content) error {
	s.contents.mu.Lock()
	defer s.contents.mu.Unlock()
	f, err := os.OpenFile(filepath.Join(s.folder(key), contentsFile), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(c.append(nil, key), st.Size()/contentSize*contentSize) // over what is torn
	}
	if err = errors.Join(err, f.Close()); err == nil {
		s.contents.learnLocked(holder{key, c})
	}
	return err
}

// list has the folder's list say what a body holds, when there is something of it. b may be nil.
func (b *body) list() {
	if b == nil || b.listed.Swap(true) {
		return
	}
	if err := b.obj.store.list(string(b.obj.Key), b.content(false)); err != nil {
		b.obj.store.log.Debug("cache contents", "err", err) // it will not be found, and that is all
	}
}

// markShared has the folder's list say that a body is shared, before it is.
func (b *body) markShared() error {
	if b.marked {
		return nil
	}
	b.listed.Store(true)
	err := b.obj.store.list(string(b.obj.Key), b.content(true))
	b.marked = err == nil
	return err
}

// alone reports whether a body that was shared is nobody else's now that it is closed.
func (b *body) alone() bool {
	if !b.marked || b.share != nil && !b.ours {
		return false
	}
	_, _, links, err := lookAt(b.home)
	return err == nil && links == 1
}

func (b *body) content(shared bool) content {
	return content{b.obj.Content[b.number], uint32(b.number), uint32(b.first), shared}
}
