package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func anyID(t *rapid.T) MessageID {
	var id MessageID
	copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
	return id
}

func TestIDsReadBackAndSortAsTheirBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyID(t), anyID(t)
		text := a.String()
		if len(text) != len("msg_")+27 {
			t.Fatalf("%q has %d characters", text, len(text))
		}
		back, err := ParseID[MessageID](text)
		if err != nil || back != a {
			t.Fatalf("%q reads back as %v, %v", text, back, err)
		}
		if got, want := strings.Compare(a.String(), b.String()), bytes.Compare(a[:], b[:]); got != want {
			t.Fatalf("%s and %s compare as %d, their bytes as %d", a, b, got, want)
		}
	})
}

func TestMistypedIDsAreRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(anyID(t).String())
		at := rapid.IntRange(len("msg_"), len(text)-1).Draw(t, "at")
		old := text[at]
		text[at] = rapid.SampledFrom([]byte(base62)).Draw(t, "character")
		if text[at] == old {
			t.Skip("nothing changed")
		}
		if _, err := ParseID[MessageID](string(text)); !errors.Is(err, ErrBadID) {
			t.Fatalf("%s with character %d changed is read: %v", text, at, err)
		}
	})
}

func TestWhatIsNotAnIDIsRefused(t *testing.T) {
	id := NewMessageID().String()
	for _, text := range []string{
		"", "msg_", id[4:], id + "0", id[:len(id)-1], "ep_" + id[4:], "MSG_" + id[4:], id[:10] + "-" + id[11:],
		"msg_" + strings.Repeat("z", 27), id[:10] + "é" + id[12:], " " + id,
	} {
		if _, err := ParseID[MessageID](text); !errors.Is(err, ErrBadID) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := ParseID[EndpointID]("ep_" + id[4:]); !errors.Is(err, ErrBadID) {
		t.Error("an id of one kind is read as another by changing its prefix")
	}
}

func TestNewIDsAscendAndKnowTheirTime(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	ids := make([]MessageID, 10_000)
	for i := range ids {
		ids[i] = NewMessageID()
	}
	// A millisecond has room for 3,906 of them; who mints faster borrows from the next.
	after := time.Now().Add(3 * time.Millisecond)
	if !slices.IsSortedFunc(ids, func(a, b MessageID) int { return bytes.Compare(a[:], b[:]) }) {
		t.Error("ids made one after the other do not ascend")
	}
	for _, id := range ids {
		if at := id.Time(); at.Before(before) || at.After(after) {
			t.Fatalf("id of %v made between %v and %v", at, before, after)
		}
	}
	at := time.Date(2026, 2, 3, 4, 5, 6, 789e6, time.UTC)
	if got := NewAttemptIDAt(at).Time(); !got.Equal(at) {
		t.Errorf("attempt id at %v says %v", at, got)
	}
	if low := IDAt[messageKind](at); low.Time() != at || low.String() >= NewMessageID().String() {
		t.Errorf("the lowest id of a time is not: %v", low)
	}
}

func TestIDsInJSONAndSQL(t *testing.T) {
	type row struct {
		ID EndpointID `json:"id"`
	}
	want := row{NewEndpointID()}
	text, err := json.Marshal(want)
	if err != nil || string(text) != `{"id":"`+want.ID.String()+`"}` {
		t.Fatalf("%s, %v", text, err)
	}
	var got row
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Fatalf("%v, %v", got, err)
	}
	if err := json.Unmarshal([]byte(`{"id":"ep_1"}`), &got); err == nil {
		t.Error("a bad id is read from JSON")
	}
	value, err := want.ID.Value()
	if err != nil {
		t.Fatal(err)
	}
	var scanned EndpointID
	if err := scanned.Scan(value); err != nil || scanned != want.ID {
		t.Fatalf("%v scans as %v, %v", value, scanned, err)
	}
	if value, err := (EndpointID{}).Value(); value != nil || err != nil {
		t.Errorf("the zero id is %v, %v in SQL", value, err)
	}
	if err := scanned.Scan(nil); err != nil || !scanned.IsZero() {
		t.Errorf("NULL scans as %v, %v", scanned, err)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(NewMessageID().String())
	f.Add("msg_")
	f.Add("msg_zzzzzzzzzzzzzzzzzzzzzzzzzzz")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID[MessageID](text)
		if err == nil && id.String() != text {
			t.Fatalf("%q reads as an id that is written %q", text, id)
		}
	})
}

func BenchmarkIDString(b *testing.B) {
	id := NewMessageID()
	for b.Loop() {
		_ = id.String()
	}
}
