package embedded

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func needRoot(t *testing.T) *account {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	who, err := postgresAccount("/nonexistent")
	if err != nil {
		t.Skip(err)
	}
	return who
}

func ownerOf(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

func TestRootRunsTheServerAsAnotherUser(t *testing.T) {
	t.Parallel()
	who := needRoot(t)
	dir := workDir(t)
	p := start(t, PostgresOptions{Dir: dir})
	for _, path := range []string{"/proc/" + strconv.Itoa(p.PID()), dir + "/data", dir + "/sock"} {
		if uid := ownerOf(t, path); uid != who.uid {
			t.Errorf("%s belongs to %d, want %d", path, uid, who.uid)
		}
	}
	for _, path := range []string{dir, dir + "/lock"} {
		if uid := ownerOf(t, path); uid != 0 {
			t.Errorf("%s belongs to %d, want root", path, uid)
		}
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/status")
	if err == nil && !strings.Contains(string(status), "\nGroups:\t \n") {
		t.Errorf("the server kept root's groups:\n%s", status)
	}
}

func TestOrdinaryUserThenRoot(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const uid, gid = 65534, 65534
	nobody := &account{name: "nobody", uid: uid, gid: gid}
	where := places{path: filepath.SplitList(os.Getenv("PATH")), globs: systemGlobs}
	if _, err := where.choose(t.Context(), nobody, 0, "", slog.New(slog.DiscardHandler)); err != nil {
		for _, bundle := range RepositoryBundle() {
			if err := nobody.reach(bundle); err != nil {
				t.Skipf("an ordinary user has no Postgres here: %v", err)
			}
		}
	}
	dir := filepath.Join(workDir(t), "pg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	owner, pid := anotherOwner(t, dir, nobody)
	if got := ownerOf(t, "/proc/"+strconv.Itoa(pid)); got != uid {
		t.Fatalf("the server runs as %d, want %d", got, uid)
	}
	if guest := start(t, PostgresOptions{Dir: dir}); !guest.Guest() || query[int](t, guest.URL("postgres"), "SELECT 1") != 1 {
		t.Fatal("root could not attach to an ordinary user's server")
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server to go", func() bool { return !serves(pid, dir+"/data") })

	p := start(t, PostgresOptions{Dir: dir})
	if got := ownerOf(t, "/proc/"+strconv.Itoa(p.PID())); got != uid {
		t.Fatalf("under root the server runs as %d, want the data's owner %d", got, uid)
	}
}

func TestRootsDataIsClosedToAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := workDir(t)
	stop(t, start(t, PostgresOptions{Dir: dir}))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(workDir(t), "embedded.test")
	if err := copyFile(self, copied); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied)
	cmd.Env, cmd.Dir = append(os.Environ(), helperVariable+"="+dir), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "run as the user who made the directory") {
		t.Fatalf("error %v, output %s", err, out)
	}
}

func TestUnreachableDirectoryIsRefusedFirst(t *testing.T) {
	t.Parallel()
	needRoot(t)
	closed := workDir(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "state", "pg")
	_, err := begin(t.Context(), PostgresOptions{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "cannot enter "+closed+" (mode 0700)") || !strings.Contains(err.Error(), stateDir) {
		t.Fatalf("error %v", err)
	}
	if entries, _ := os.ReadDir(closed); len(entries) > 0 {
		t.Fatalf("%v was made before the refusal", entries)
	}
	moved, err := DataDir(dir)
	if err != nil || !strings.HasPrefix(moved, stateDir+"/pg-") {
		t.Fatalf("moved to %q, %v", moved, err)
	}
	if other, _ := DataDir(filepath.Join(closed, "other", "pg")); other == moved {
		t.Fatal("two directories moved to one place")
	}
	open := filepath.Join(workDir(t), "pg")
	if kept, err := DataDir(open); err != nil || kept != open {
		t.Fatalf("moved %q to %q, %v", open, kept, err)
	}
}

// A temporary directory of root's own is closed, and may be opened: it is the one that was given.
func TestGivenDirectoryIsOpened(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := workDir(t)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	start(t, PostgresOptions{Dir: dir})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

func TestReach(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := workDir(t)
	who := &account{name: "somebody", uid: 12345, gid: 54321}
	for _, test := range []struct {
		uid, gid int
		mode     os.FileMode
		enters   bool
	}{
		{0, 0, 0o711, true}, {0, 0, 0o710, false}, {0, 0, 0o766, false},
		{12345, 0, 0o100, true}, {12345, 0, 0o677, false},
		{0, 54321, 0o010, true}, {0, 54321, 0o701, false},
	} {
		if err := os.Chown(dir, test.uid, test.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, test.mode); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, filepath.Join(dir, "not", "there")} {
			if err := who.reach(path); (err == nil) != test.enters {
				t.Errorf("%d:%d %#o: %v", test.uid, test.gid, test.mode, err)
			}
		}
	}
}

func TestSomebodyElsesDirectoryIsNotTaken(t *testing.T) {
	t.Parallel()
	who := needRoot(t)
	base := workDir(t)
	theirs := filepath.Join(base, "theirs")
	if err := os.Mkdir(theirs, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(base, "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{theirs, link} {
		if err := who.own(path); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
	if uid := ownerOf(t, theirs); uid != 0 {
		t.Errorf("the directory was given to %d", uid)
	}
}
