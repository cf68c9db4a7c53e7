package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

func randomKey() string {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

func keyset(t testing.TB, text string) *Keyset {
	t.Helper()
	s, err := ParseKeyset(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var place = AD{Table: "endpoint_secret", Column: "sealed", Tenant: [16]byte{1}, Row: [16]byte{2}}

func TestParseKeyset(t *testing.T) {
	key := randomKey()
	many := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = randomKey()
		}
		return strings.Join(list, ",")
	}
	bytesOf := func(f func(i int) byte) string {
		b := make([]byte, KeySize)
		for i := range b {
			b[i] = f(i)
		}
		return base64.StdEncoding.EncodeToString(b)
	}
	nist, _ := hex.DecodeString("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
	for _, tc := range []struct {
		name, text string
		want       error
	}{
		{"bare", key, nil},
		{"bare, as a file ends", " " + key + "\n", nil},
		{"named", "k1:" + key, nil},
		{"list", "k2:" + randomKey() + ", k1:" + key, nil},
		{"list of bare keys", randomKey() + "," + key, nil},
		{"longest id", strings.Repeat("k", MaxKeyID) + ":" + key, nil},
		{"id too long", strings.Repeat("k", MaxKeyID+1) + ":" + key, ErrKeyID},
		{"id empty", ":" + key, ErrKeyID},
		{"id with a dot", "k.1:" + key, ErrKeyID},
		{"empty", "", ErrNoKey},
		{"blank", " \n", ErrNoKey},
		{"hole in the list", key + ",", ErrKeyFormat},
		{"31 bytes", base64.StdEncoding.EncodeToString(make([]byte, 31)), ErrKeyFormat},
		{"33 bytes", base64.StdEncoding.EncodeToString(make([]byte, 33)), ErrKeyFormat},
		{"hex", strings.Repeat("0123456789abcdef", 4), ErrKeyFormat},
		{"no padding", strings.TrimRight(key, "="), ErrKeyFormat},
		{"line break inside", key[:10] + "\n" + key[10:], ErrKeyFormat},
		{"zeros", bytesOf(func(int) byte { return 0 }), ErrWeakKey},
		{"ones", bytesOf(func(int) byte { return 0xff }), ErrWeakKey},
		{"counting up", bytesOf(func(i int) byte { return byte(i) }), ErrWeakKey},
		{"counting down", bytesOf(func(i int) byte { return byte(200 - 3*i) }), ErrWeakKey},
		{"short pattern", bytesOf(func(i int) byte { return "\xde\xad\xbe\xef"[i%4] }), ErrWeakKey},
		{"readable text", base64.StdEncoding.EncodeToString([]byte("change-me:abcdefghijklmnopqrstuv")), ErrWeakKey},
		{"published sample", base64.StdEncoding.EncodeToString(nist), ErrWeakKey},
		{"same key twice", "k1:" + key + ",k2:" + key, ErrDuplicateKey},
		{"same id twice", "k1:" + key + ",k1:" + randomKey(), ErrDuplicateKey},
		{"most keys", many(MaxKeys), nil},
		{"too many keys", many(MaxKeys + 1), ErrTooManyKeys},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseKeyset(tc.text)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if err == nil {
				return
			}
			for _, part := range strings.Split(strings.TrimSpace(tc.text), ",") {
				if _, digits, ok := strings.Cut(part, ":"); ok {
					part = digits
				}
				if len(part) > 8 && strings.Contains(err.Error(), part[:8]) {
					t.Error("the error shows the key")
				}
			}
		})
	}
}

func TestFewDistinctBytes(t *testing.T) {
	with := func(n int) []byte {
		b := make([]byte, KeySize)
		for i := range b {
			b[i] = byte(i%n)*7 ^ 0x80
		}
		return b
	}
	if weak(with(minDistinctBytes)) {
		t.Error("refused at the limit")
	}
	if !weak(with(minDistinctBytes - 1)) {
		t.Error("accepted under the limit")
	}
}

func TestSealedOpensOnlyInItsPlace(t *testing.T) {
	s := keyset(t, randomKey())
	id := rapid.Custom(func(t *rapid.T) (b [16]byte) {
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes"))
		b[0] |= 1
		return b
	})
	name := rapid.StringMatching(`[a-z_|]{1,20}`)
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		ad := AD{name.Draw(t, "table"), name.Draw(t, "column"), id.Draw(t, "tenant"), id.Draw(t, "row")}
		sealed, err := s.Seal(plain, ad)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := s.Open(sealed, ad)
		if err != nil || !bytes.Equal(opened, plain) {
			t.Fatalf("opened as %q, %v", opened, err)
		}
		if other := (AD{name.Draw(t, "table"), name.Draw(t, "column"), id.Draw(t, "tenant"), id.Draw(t, "row")}); other != ad {
			if _, err := s.Open(sealed, other); !errors.Is(err, ErrRefused) {
				t.Fatalf("elsewhere: %v", err)
			}
		}
		where := rapid.IntRange(0, len(sealed)-1).Draw(t, "where")
		changed := bytes.Clone(sealed)
		changed[where] ^= rapid.ByteRange(1, 255).Draw(t, "bits")
		if opened, err := s.Open(changed, ad); err == nil {
			t.Fatalf("changed byte %d: opened as %q", where, opened)
		}
		if _, err := s.Open(sealed[:where], ad); err == nil {
			t.Fatalf("cut to %d bytes: opened", where)
		}
		if len(plain) > 8 && bytes.Contains(sealed, plain) {
			t.Fatal("the sealed form shows the text")
		}
	})
}

func TestSwapped(t *testing.T) {
	s := keyset(t, randomKey())
	sealed, err := s.Seal([]byte("whsec_canary"), place)
	if err != nil {
		t.Fatal(err)
	}
	for name, ad := range map[string]AD{
		"row":                      {place.Table, place.Column, place.Tenant, [16]byte{3}},
		"tenant":                   {place.Table, place.Column, [16]byte{3}, place.Row},
		"row and tenant exchanged": {place.Table, place.Column, place.Row, place.Tenant},
		"column":                   {place.Table, "headers", place.Tenant, place.Row},
		"table":                    {"endpoint", place.Column, place.Tenant, place.Row},
		"letter moved":             {place.Table + "s", place.Column[1:], place.Tenant, place.Row},
	} {
		if _, err := s.Open(sealed, ad); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForgottenPlace(t *testing.T) {
	s := keyset(t, randomKey())
	for name, ad := range map[string]AD{
		"table":  {"", place.Column, place.Tenant, place.Row},
		"column": {place.Table, "", place.Tenant, place.Row},
		"tenant": {place.Table, place.Column, [16]byte{}, place.Row},
		"row":    {place.Table, place.Column, place.Tenant, [16]byte{}},
	} {
		if _, err := s.Seal(nil, ad); !errors.Is(err, ErrPlace) {
			t.Errorf("seal without %s: %v", name, err)
		}
		if _, err := s.Open(nil, ad); !errors.Is(err, ErrPlace) {
			t.Errorf("open without %s: %v", name, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	s := keyset(t, "k1:"+randomKey())
	sealed, err := s.Seal([]byte("text"), place)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(sealed), ".")
	for _, text := range []string{
		"", "v1", "v1.", "v1.k1", "v1.k1.", "v1.k1..", "v1..a.b", "v2." + strings.Join(parts[1:], "."), "plain text",
		"v1.k1." + parts[2], "v1.k1." + parts[2] + ".", "v1.k1." + parts[2] + "." + parts[3][:20],
		"v1.k1." + parts[2] + "." + parts[3] + "=", "v1.k1." + parts[2] + "." + parts[3][:8] + "\n" + parts[3][8:],
		"v1.k1." + parts[2][:15] + "." + parts[3], "v1.k1." + parts[2][:15] + "\n." + parts[3], "v1.k1.****************." + parts[3],
		"v1.k 1." + parts[2] + "." + parts[3], string(sealed) + ".AAAA",
	} {
		if _, err := s.Open([]byte(text), place); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestRotation(t *testing.T) {
	oldKey, newKey := randomKey(), randomKey()
	before, during, after := keyset(t, oldKey), keyset(t, "new:"+newKey+","+oldKey), keyset(t, "new:"+newKey)
	sealed, err := before.Seal([]byte("secret"), place)
	if err != nil {
		t.Fatal(err)
	}
	if before.NeedsRewrap(sealed) || !during.NeedsRewrap(sealed) {
		t.Error("what is to be sealed again is misjudged")
	}
	plain, err := during.Open(sealed, place)
	if err != nil || string(plain) != "secret" {
		t.Fatalf("the old key no longer opens: %q, %v", plain, err)
	}
	if _, err := after.Open(sealed, place); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("without the old key: %v", err)
	}
	again, err := during.Seal(plain, place)
	if err != nil {
		t.Fatal(err)
	}
	if during.NeedsRewrap(again) || KeyID(again) != "new" || during.PrimaryID() != "new" {
		t.Errorf("sealed under %s, not the primary", KeyID(again))
	}
	if plain, err := after.Open(again, place); err != nil || string(plain) != "secret" {
		t.Errorf("after the rotation: %q, %v", plain, err)
	}
	// Relabelling a value with another key's id must not pass for a rewrap.
	if _, err := during.Open(bytes.Replace(sealed, []byte(KeyID(sealed)), []byte("new"), 1), place); !errors.Is(err, ErrRefused) {
		t.Errorf("relabelled: %v", err)
	}
	if !during.NeedsRewrap([]byte("rubbish")) || KeyID([]byte("rubbish")) != "" {
		t.Error("rubbish passes for sealed")
	}
}

func TestSealingTwiceDiffers(t *testing.T) {
	s := keyset(t, randomKey())
	a, _ := s.Seal([]byte("x"), place)
	b, _ := s.Seal([]byte("x"), place)
	if bytes.Equal(a, b) {
		t.Error("equal secrets are recognisable")
	}
}

func TestCacheIsBoundedAndRight(t *testing.T) {
	s := keyset(t, randomKey())
	ad := place
	first, err := s.Seal([]byte("first"), ad)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxCached {
		k := cacheKey{0, [16]byte{9, byte(i), byte(i >> 8), byte(i >> 16)}}
		if _, err := s.cache.find(k, func() (cipher.AEAD, error) { return s.keys[0].dataKey([16]byte{9}) }); err != nil {
			t.Fatal(err)
		}
		if n := s.cache.size(); n > 2*maxCached {
			t.Fatalf("%d data keys are kept", n)
		}
	}
	if plain, err := s.Open(first, ad); err != nil || string(plain) != "first" {
		t.Errorf("after being forgotten: %q, %v", plain, err)
	}
}

func TestManyGoroutines(t *testing.T) {
	s := keyset(t, randomKey()+","+randomKey())
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 100 {
				ad := place
				ad.Tenant = [16]byte{1, byte(i)}
				ad.Row = [16]byte{byte(g + 1)}
				want := fmt.Sprint(g, i)
				sealed, err := s.Seal([]byte(want), ad)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := s.Open(sealed, ad); err != nil || string(got) != want {
					t.Errorf("got %q, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestDerivedKeysAreTheirPurposesOwn(t *testing.T) {
	first, second := randomKey(), randomKey()
	derive := func(s *Keyset, purpose string) (ids []string, keys []string) {
		err := s.Derive(purpose, func(id string, key []byte) {
			if len(key) != KeySize {
				t.Errorf("%d bytes", len(key))
			}
			ids, keys = append(ids, id), append(keys, string(key))
		})
		if err != nil {
			t.Fatal(err)
		}
		return ids, keys
	}
	both := keyset(t, first+","+second)
	ids, keys := derive(both, "a")
	if len(keys) != 2 || ids[0] != both.PrimaryID() || keys[0] == keys[1] {
		t.Fatal(ids)
	}
	if _, again := derive(keyset(t, first), "a"); again[0] != keys[0] {
		t.Error("a key is not the same in another keyset")
	}
	if _, other := derive(both, "b"); other[0] == keys[0] {
		t.Error("two purposes have one key")
	}
	if raw, _ := base64.StdEncoding.DecodeString(first); string(raw) == keys[0] {
		t.Error("a master key is handed out")
	}
}

func TestKeysetNeverPrintsItself(t *testing.T) {
	text := randomKey()
	raw, _ := base64.StdEncoding.DecodeString(text)
	s := keyset(t, text)
	holder := struct{ Keys *Keyset }{s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n"+verb+"\n", s, holder)
	}
	j, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "holder", holder)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "holder", holder)
	for _, leak := range []string{text[:43], hex.EncodeToString(raw), strings.Trim(fmt.Sprint(raw), "[]"), string(raw)} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("printed: %s", out.String())
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := keyset(f, "k1:"+randomKey())
	sealed, err := s.Seal([]byte("text"), place)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte("v1.k1.AAAAAAAAAAAAAAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, err := s.Open(text, place); err == nil && !bytes.Equal(text, sealed) {
			t.Fatalf("opened %q", text)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	s := keyset(b, randomKey())
	sealed, err := s.Seal([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), place)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Open(sealed, place); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDataKey(b *testing.B) {
	s := keyset(b, randomKey())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.keys[0].dataKey(place.Tenant); err != nil {
			b.Fatal(err)
		}
	}
}
