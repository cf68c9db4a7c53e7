package groupcommit

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate lets a test hold the flusher inside a batch.
type gate struct {
	mu      sync.Mutex
	batches [][]int
	entered chan struct{}
	leave   chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan struct{}, 1000), leave: make(chan struct{})} }

func (g *gate) flush(batch []int) {
	g.mu.Lock()
	g.batches = append(g.batches, slices.Clone(batch))
	g.mu.Unlock()
	g.entered <- struct{}{}
	<-g.leave
}

var roomy = Options{BatchItems: 4, BatchSize: 100, WaitingItems: 10, WaitingSize: 1000}

func TestWhatArrivesDuringAFlushIsTheNextBatch(t *testing.T) {
	gt := newGate()
	g := New(roomy, gt.flush)
	must(t, g.Add(1, 1))
	<-gt.entered
	for i := 2; i <= 7; i++ {
		must(t, g.Add(i, 1))
	}
	close(gt.leave)
	g.Close()
	want := [][]int{{1}, {2, 3, 4, 5}, {6, 7}}
	if !slices.EqualFunc(gt.batches, want, slices.Equal) {
		t.Fatalf("batches %v, want %v", gt.batches, want)
	}
}

func TestBatchSizeBoundsABatchButNeverStopsABigItem(t *testing.T) {
	gt := newGate()
	g := New(roomy, gt.flush)
	must(t, g.Add(0, 1))
	<-gt.entered
	must(t, g.Add(1, 60))
	must(t, g.Add(2, 40))
	must(t, g.Add(3, 1))
	must(t, g.Add(4, 500))
	must(t, g.Add(5, 1))
	close(gt.leave)
	g.Close()
	want := [][]int{{0}, {1, 2}, {3}, {4}, {5}}
	if !slices.EqualFunc(gt.batches, want, slices.Equal) {
		t.Fatalf("batches %v, want %v", gt.batches, want)
	}
}

func TestAddRefusesOverTheLimits(t *testing.T) {
	gt := newGate()
	g := New(roomy, gt.flush)
	must(t, g.Add(0, 1))
	<-gt.entered
	for i := range roomy.WaitingItems {
		must(t, g.Add(i, 1))
	}
	if err := g.Add(99, 1); !errors.Is(err, ErrFull) {
		t.Fatalf("one item over the limit: %v", err)
	}
	close(gt.leave)
	g.Close()
	if err := g.Add(1, 1); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}

	gt = newGate()
	g = New(roomy, gt.flush)
	must(t, g.Add(0, 1))
	<-gt.entered
	must(t, g.Add(1, roomy.WaitingSize-1))
	must(t, g.Add(2, 1))
	if err := g.Add(3, 1); !errors.Is(err, ErrFull) {
		t.Fatalf("one byte over the limit: %v", err)
	}
	close(gt.leave)
	g.Close()
}

func TestEveryItemIsFlushedOnceInOrderOfEachCaller(t *testing.T) {
	var got []int
	g := New(Options{BatchItems: 7, BatchSize: 1 << 20, WaitingItems: 1 << 20, WaitingSize: 1 << 20},
		func(batch []int) { got = append(got, batch...) })
	var callers sync.WaitGroup
	for c := range 8 {
		callers.Go(func() {
			for i := range 500 {
				must(t, g.Add(c*1000+i, 1))
			}
		})
	}
	callers.Wait()
	g.Close()
	if len(got) != 8*500 {
		t.Fatalf("%d items flushed, want %d", len(got), 8*500)
	}
	last := map[int]int{}
	for _, v := range got {
		if c := v / 1000; v%1000 != last[c] {
			t.Fatalf("caller %d: item %d came where %d was due", c, v%1000, last[c])
		}
		last[v/1000]++
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
