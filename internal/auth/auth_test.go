package auth_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/auth"
)

func TestNewAPIKeyParses(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		secret, digest, hint := auth.NewAPIKey()
		text := secret.Reveal()
		got, err := auth.ParseAPIKey(text)
		if err != nil {
			t.Fatalf("our own key is refused: %v", err)
		}
		if got != digest || digest != sha256.Sum256([]byte(text)) || !auth.Same(digest[:], got) {
			t.Fatal("the digest is not the key's")
		}
		if seen[text] {
			t.Fatal("the same key twice")
		}
		seen[text] = true
		if !strings.HasPrefix(text, hint) || !strings.HasPrefix(hint, "phk_") || len(hint) != 8 {
			t.Fatalf("the hint %q is not the key's", hint)
		}
		if strings.Contains(text, ".") {
			t.Fatal("a dot in the key")
		}
		if fmt.Sprintf("%v %+v %s", secret, secret, secret) != "*** *** ***" {
			t.Fatal("the key prints itself")
		}
	}
}

func TestRandomPartUsesAllOfBase62(t *testing.T) {
	count := map[rune]int{}
	for range 2000 {
		secret, _, _ := auth.NewAPIKey()
		for _, c := range strings.Split(secret.Reveal(), "_")[1] {
			count[c]++
		}
	}
	// 86,000 characters over 62: 1,387 each, standard deviation 37. Six of them are never exceeded by
	// chance; a draw by plain modulo would give the first eight a quarter more.
	if len(count) != 62 {
		t.Fatalf("%d different characters", len(count))
	}
	for c, n := range count {
		if n < 1387-6*37 || n > 1387+6*37 {
			t.Errorf("%q: %d times", c, n)
		}
	}
}

func TestForeignTextIsNoAPIKey(t *testing.T) {
	secret, _, _ := auth.NewAPIKey()
	text := secret.Reveal()
	for _, bad := range []string{
		"", "phk_", text[:len(text)-1], text + "0", " " + text, text + "\n", strings.ToUpper(text[:4]) + text[4:],
		"sk_" + text[3:] + "", strings.Replace(text, "_", "-", 2), strings.Repeat("0", len(text)),
		"phk_" + strings.Repeat("0", 43) + "_000000", strings.Repeat("x", 1<<20),
	} {
		if _, err := auth.ParseAPIKey(bad); !errors.Is(err, auth.ErrBadAPIKey) {
			t.Errorf("%.60q: %v", bad, err)
		}
	}
}

func TestMistypedAPIKeyIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret, _, _ := auth.NewAPIKey()
		text := []byte(secret.Reveal())
		where := rapid.IntRange(0, len(text)-1).Draw(t, "where")
		if rapid.Bool().Draw(t, "swap") && where+1 < len(text) && text[where] != text[where+1] {
			text[where], text[where+1] = text[where+1], text[where]
		} else {
			text[where] ^= rapid.ByteRange(1, 255).Draw(t, "bits")
		}
		if _, err := auth.ParseAPIKey(string(text)); !errors.Is(err, auth.ErrBadAPIKey) {
			t.Fatalf("accepted %q", text)
		}
	})
}

func TestSame(t *testing.T) {
	digest := sha256.Sum256([]byte("a"))
	other := sha256.Sum256([]byte("b"))
	if !auth.Same(digest[:], digest) || auth.Same(other[:], digest) || auth.Same(nil, digest) || auth.Same(digest[:31], digest) {
		t.Error("wrong")
	}
}

func TestScopes(t *testing.T) {
	all := []auth.Scope{auth.Read, auth.Send, auth.Write, auth.Admin}
	for _, tc := range []struct {
		names string
		allow string
	}{
		{"read", "read"},
		{"send", "send"},
		{"write", "read write"},
		{"admin", "read send write admin"},
		{"read send", "read send"},
		{"send write", "read send write"},
		{"write send write read", "read send write"},
	} {
		set, err := auth.ParseScopes(strings.Fields(tc.names))
		if err != nil {
			t.Fatalf("%s: %v", tc.names, err)
		}
		var allow []string
		for _, s := range all {
			if set.Allow(s) {
				allow = append(allow, string(s))
			}
		}
		if got := strings.Join(allow, " "); got != tc.allow {
			t.Errorf("%s allows %s, want %s", tc.names, got, tc.allow)
		}
		if set.Allow("root") || set.Allow("") {
			t.Errorf("%s allows what does not exist", tc.names)
		}
		again, err := auth.ParseScopes(set.Names())
		if err != nil || again != set {
			t.Errorf("%s: its names %v read back as %v, %v", tc.names, set.Names(), again, err)
		}
	}
	if set, _ := auth.ParseScopes([]string{"write", "send", "send"}); set.String() != "send,write" {
		t.Errorf("written as %s", set)
	}
	var none auth.Scopes
	for _, s := range all {
		if none.Allow(s) {
			t.Errorf("no scope allows %s", s)
		}
	}
	if none.Names() == nil {
		t.Error("no names are nil, which JSON writes as null")
	}
}

func TestBadScopes(t *testing.T) {
	if _, err := auth.ParseScopes(nil); !errors.Is(err, auth.ErrNoScope) {
		t.Errorf("none: %v", err)
	}
	for _, name := range []string{"", "Read", "read ", "*", "owner"} {
		set, err := auth.ParseScopes([]string{"admin", name})
		if err == nil || set != 0 || !strings.Contains(err.Error(), "read, send, write and admin") {
			t.Errorf("%q: %v, %v", name, set, err)
		}
	}
}

func TestOperatorToken(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 2)
	token, err := auth.ParseOperatorToken(text)
	if err != nil {
		t.Fatal(err)
	}
	if !token.Matches(text) || token.IsZero() {
		t.Error("does not match itself")
	}
	for _, other := range []string{"", text[1:], text + "0", strings.ToUpper(text)} {
		if token.Matches(other) {
			t.Errorf("matches %q", other)
		}
	}
	var none auth.OperatorToken
	if none.Matches("") || none.Matches(text) || !none.IsZero() {
		t.Error("no token matches something")
	}
	sum := sha256.Sum256([]byte(text))
	printed := fmt.Sprintf("%v %+v %#v %s %x %d", token, token, token, token, token, struct{ T auth.OperatorToken }{token})
	if strings.Contains(printed, fmt.Sprintf("%x", sum)) || strings.Contains(printed, fmt.Sprintf("%d", sum[0])+" ") {
		t.Errorf("prints itself: %s", printed)
	}
}

func TestOperatorTokenLimits(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       error
	}{
		{"shortest", strings.Repeat("a", auth.MinOperatorToken), nil},
		{"too short", strings.Repeat("a", auth.MinOperatorToken-1), auth.ErrOperatorTokenLength},
		{"longest", strings.Repeat("a", auth.MaxOperatorToken), nil},
		{"too long", strings.Repeat("a", auth.MaxOperatorToken+1), auth.ErrOperatorTokenLength},
		{"empty", "", auth.ErrOperatorTokenLength},
		{"space", strings.Repeat("a", 40) + " ", auth.ErrOperatorTokenText},
		{"line break", strings.Repeat("a", 40) + "\n", auth.ErrOperatorTokenText},
		{"not ASCII", strings.Repeat("é", 40), auth.ErrOperatorTokenText},
		{"DEL", strings.Repeat("a", 40) + "\x7f", auth.ErrOperatorTokenText},
	} {
		token, err := auth.ParseOperatorToken(tc.text)
		if !errors.Is(err, tc.want) || token.IsZero() != (tc.want != nil) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}

// FuzzParseAPIKey: what is taken has the form of a key, is looked up by its hash, and one sign of it
// changed is refused without a query.
func FuzzParseAPIKey(f *testing.F) {
	form := regexp.MustCompile(`^phk_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}$`)
	secret, _, _ := auth.NewAPIKey()
	for _, seed := range []string{secret.Reveal(), "phk_", secret.Reveal() + " ", strings.ToUpper(secret.Reveal()), "phk_" + strings.Repeat("0", 43) + "_000000"} {
		f.Add(seed, uint(0))
		f.Add(seed, uint(20))
	}
	f.Fuzz(func(t *testing.T, text string, at uint) {
		digest, err := auth.ParseAPIKey(text)
		if err != nil {
			if digest != [32]byte{} {
				t.Fatal("a digest and an error")
			}
			return
		}
		if !form.MatchString(text) || digest != sha256.Sum256([]byte(text)) {
			t.Fatalf("%q is taken", text)
		}
		other := []byte(text)
		if i := at % uint(len(other)); other[i] == '1' {
			other[i] = '2'
		} else {
			other[i] = '1'
		}
		if _, err := auth.ParseAPIKey(string(other)); err == nil {
			t.Fatalf("%q is taken as well as %q", other, text)
		}
	})
}
