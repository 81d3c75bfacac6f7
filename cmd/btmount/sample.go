package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// makeSample writes what the demo shares: a small web site with pictures, a file of
// 64 MiB that does not compress, and 1,000 small files. It is the same every time.
func makeSample(dir string) error {
	files := site()
	for i := range 1000 {
		name := fmt.Sprintf("small/%04d.txt", i)
		files[name] = []byte(strings.Repeat(fmt.Sprintf("A line of file %04d.\n", i), 1+i%40))
	}
	noise := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // never fails
	files["film.bin"] = noise
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const pictures = 6

// site is a web site of a few pages.
func site() map[string][]byte {
	files := map[string][]byte{"site/style.css": []byte("body { font: 16px sans-serif; max-width: 50em; margin: auto }\nimg { width: 30% }\n")}
	page := func(title, body string) []byte {
		return fmt.Appendf(nil, "<!doctype html>\n<html lang=en><meta charset=utf-8><title>%s</title>\n<link rel=stylesheet href=style.css>\n"+
			"<nav><a href=index.html>Start</a> <a href=pictures.html>Pictures</a> <a href=about.html>About</a></nav>\n<h1>%s</h1>\n%s\n</html>\n", title, title, body)
	}
	gallery := ""
	for i := 1; i <= pictures; i++ {
		gallery += fmt.Sprintf("<img src=pictures/%d.png alt='waves %d'>\n", i, i)
		files[fmt.Sprintf("site/pictures/%d.png", i)] = waves(float64(i))
	}
	files["site/index.html"] = page("A site in a torrent", "<p>Every page, style and picture comes from the swarm when it is opened.</p>")
	files["site/pictures.html"] = page("Pictures", gallery)
	files["site/about.html"] = page("About", "<p>Made by <code>btmount demo</code>.</p>")
	return files
}

// waves draws a picture.
func waves(k float64) []byte {
	const w, h = 320, 200
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			a, b := float64(x)/w*6, float64(y)/h*6
			v := math.Sin(a*k) + math.Cos(b*k+math.Sin(a))
			img.SetRGBA(x, y, color.RGBA{uint8(128 + 60*v), uint8(128 + 60*math.Sin(v+a)), uint8(128 + 60*math.Cos(v+b)), 255})
		}
	}
	var out bytes.Buffer
	_ = png.Encode(&out, img) // a Buffer takes everything
	return out.Bytes()
}
