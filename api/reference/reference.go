// Package reference is a page that describes an API, made from its OpenAPI document: every operation with
// its fields, an example request and an example answer. It is whole as it is served: it works without
// scripts, asks nothing of other hosts, and its policy would stop it if it tried.
package reference

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"
)

//go:embed assets
var assets embed.FS

// contentPolicy lets the page have what is served beside it, and nothing else: no inline code or styles,
// no requests of scripts, no forms, no frames, and no HTML made by scripts.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Site is the page and what it consists of, ready to be served.
type Site struct {
	base  string
	files map[string]file // by the path behind base; "" is the page
}

type file struct {
	kind          string
	plain, packed []byte
	tag           string // changes with the content
}

// New makes the page of a document, to be served at the path base. documentURL is where a reader finds
// the document itself.
func New(text []byte, base, documentURL string) (*Site, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	v, err := d.view(base, documentURL)
	if err != nil {
		return nil, err
	}
	pages, err := template.ParseFS(assets, "assets/*.html")
	if err != nil {
		return nil, fmt.Errorf("read the templates of the reference: %w", err)
	}
	var html bytes.Buffer
	if err := pages.ExecuteTemplate(&html, "page.html", v); err != nil {
		return nil, fmt.Errorf("render the reference: %w", err)
	}
	s := &Site{base: base, files: map[string]file{}}
	add := func(name, kind string, content []byte) error {
		f := file{kind: kind, plain: content}
		sum := sha256.Sum256(content)
		f.tag = `"` + hex.EncodeToString(sum[:12]) + `"`
		var packed bytes.Buffer
		w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		f.packed = packed.Bytes()
		s.files[name] = f
		return nil
	}
	if err := add("", "text/html; charset=utf-8", html.Bytes()); err != nil {
		return nil, err
	}
	for name, kind := range map[string]string{
		"reference.css": "text/css; charset=utf-8", "reference.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		content, err := assets.ReadFile(path.Join("assets", name))
		if err != nil {
			return nil, err
		}
		if err := add("/"+name, kind, content); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Paths are the paths that ServeHTTP answers, all with GET and HEAD.
func Paths(base string) []string {
	return []string{base, base + "/reference.css", base + "/reference.js", base + "/icon.svg"}
}

// ServeHTTP serves the page and its parts.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := s.files[strings.TrimPrefix(r.URL.Path, s.base)]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache") // it may be kept, but another version of the program may have another page
	h.Set("Vary", "Accept-Encoding")
	body, tag := f.plain, f.tag
	if accepts(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		body, tag = f.packed, strings.TrimSuffix(f.tag, `"`)+`-gzip"`
	}
	h.Set("ETag", tag)
	for known := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(known), "W/") == tag {
			h.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// accepts reports whether a client reads gzip.
func accepts(encodings string) bool {
	for one := range strings.SplitSeq(encodings, ",") {
		name, weight, _ := strings.Cut(strings.TrimSpace(one), ";")
		if name == "gzip" {
			weight = strings.TrimSpace(weight)
			return weight != "q=0" && !strings.HasPrefix(weight, "q=0.0")
		}
	}
	return false
}
