package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeBinaries makes a folder with an initdb and a postgres that is a shell script.
func fakeBinaries(t *testing.T, dir, script string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"initdb", "postgres"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func says(version string) string { return "echo 'postgres (PostgreSQL) " + version + "'" }

func TestBrokenBinariesAreSkipped(t *testing.T) {
	t.Parallel()
	var log record
	broken := fakeBinaries(t, workDir(t), "echo 'libmissing.so: cannot open' >&2; exit 127")
	p := start(t, PostgresOptions{Dir: workDir(t), BinDir: broken, Log: log.logger()})
	if n := query[int](t, p.URL("postgres"), "SELECT 1"); n != 1 {
		t.Fatalf("read %d, want 1", n)
	}
	if text := log.String(); !strings.Contains(text, "skipped unusable") || !strings.Contains(text, "libmissing.so") {
		t.Errorf("the log does not say what was skipped and why:\n%s", text)
	}
}

func TestChoice(t *testing.T) {
	t.Parallel()
	root := workDir(t)
	make := func(name, script string) string { return fakeBinaries(t, filepath.Join(root, name, "bin"), script) }
	v14 := make("pg/14", says("14.2"))
	v15 := make("pg/15", says("15.18 (Debian 15.18-0+deb12u1)"))
	v9 := make("pg/9.6", says("9.6.24"))
	v18 := make("pg/18", says("18beta1"))
	broken := make("broken", "exit 1")
	mute := make("mute", "echo hello")
	glob := filepath.Join(root, "pg", "*", "bin")
	if err := os.Remove(filepath.Join(make("half", says("17.1")), "initdb")); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(root, "half", "bin")
	linked := filepath.Join(root, "linked")
	if err := os.Mkdir(linked, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(v15, "postgres"), filepath.Join(linked, "postgres")); err != nil {
		t.Fatal(err)
	}

	who, err := postgresAccount(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		where places
		want  int // major of the data
		bin   string
		err   error
		texts []string
	}{
		{name: "newest of a glob", where: places{globs: []string{glob}}, bin: v18},
		{name: "PATH before globs", where: places{path: []string{v15}, globs: []string{glob}}, bin: v15},
		{name: "given before PATH", where: places{binDir: v18, path: []string{v15}}, bin: v18},
		{name: "link on PATH is resolved", where: places{path: []string{linked}}, bin: v15},
		{name: "relative PATH is ignored", where: places{path: []string{".", "", v15}}, bin: v15},
		{name: "broken, mute and half are skipped", where: places{binDir: broken, path: []string{mute, half, v15}}, bin: v15},
		{name: "the data decides", where: places{path: []string{v18}, globs: []string{glob}}, want: 15, bin: v15},
		{name: "oldest that will do", where: places{path: []string{v14, v9, v15}}, bin: v15},
		{name: "too old", where: places{path: []string{v9, v14}}, err: ErrNoPostgres, texts: []string{"14.2 is older than 15", "9.6.24 is older than 15"}},
		{name: "nothing", where: places{}, err: ErrNoPostgres, texts: []string{"15 or newer", "apt-get install postgresql", "brew install postgresql", "make postgres-bundle"}},
		{name: "nothing for the data", where: places{}, want: 16, err: ErrNoPostgres, texts: []string{"need version 16"}},
		{name: "another major", where: places{globs: []string{glob}}, want: 16, err: ErrOtherMajor, texts: []string{"made by Postgres 16", "18 (" + v18, "15 (" + v15, "install Postgres 16"}},
		{name: "bundle without an installation", where: places{bundles: []string{root}}, err: ErrNoPostgres},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := test.where.choose(t.Context(), who, test.want, filepath.Join(root, "copies"), slog.New(slog.DiscardHandler))
			if !errors.Is(err, test.err) || found.bin != test.bin {
				t.Fatalf("chose %q, error %v; want %q, %v", found.bin, err, test.bin, test.err)
			}
			for _, text := range test.texts {
				if !strings.Contains(fmt.Sprint(err), text) {
					t.Errorf("error lacks %q:\n%v", text, err)
				}
			}
		})
	}
}

func TestInstallHelpIsOneLineEach(t *testing.T) {
	t.Parallel()
	_, err := startPostgres(t.Context(), PostgresOptions{Dir: workDir(t)}, places{})
	if !errors.Is(err, ErrNoPostgres) {
		t.Fatalf("error %v", err)
	}
	lines := strings.Split(err.Error(), "\n")[1:]
	if len(lines) != 3 {
		t.Fatalf("%d lines of help, want 3:\n%v", len(lines), err)
	}
	for i, word := range []string{"apt-get", "brew", "npm"} {
		if !strings.Contains(lines[i], word) {
			t.Errorf("line %d lacks %s: %q", i+1, word, lines[i])
		}
	}
}

func TestHangingBinariesAreCutOff(t *testing.T) {
	t.Parallel()
	who, err := postgresAccount("/")
	if err != nil {
		t.Fatal(err)
	}
	// The script's own child holds the output open, so killing the script alone would not do.
	bin := fakeBinaries(t, workDir(t), "echo $$; sleep 600 & wait")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := probe(ctx, who, bin); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
	if took := time.Since(begin); took > outputDelay {
		t.Errorf("took %v", took)
	}
}

func TestRelativeBinDir(t *testing.T) {
	dir := fakeBinaries(t, filepath.Join(workDir(t), "bin"), says("17.1"))
	t.Chdir(filepath.Dir(dir))
	who, err := postgresAccount(dir)
	if err != nil {
		t.Fatal(err)
	}
	found, err := places{binDir: "bin"}.choose(t.Context(), who, 0, "", slog.New(slog.DiscardHandler))
	if err != nil || found.bin != dir {
		t.Fatalf("chose %q, %v", found.bin, err)
	}
}

func TestMajorInPath(t *testing.T) {
	t.Parallel()
	dirs := []string{"/usr/lib/postgresql/9.6/bin", "/usr/pgsql-16/bin", "/opt/postgresql/bin", "/opt/postgresql@17/bin"}
	slices.SortStableFunc(dirs, func(a, b string) int { return majorInPath(b) - majorInPath(a) })
	want := []string{"/opt/postgresql@17/bin", "/usr/pgsql-16/bin", "/usr/lib/postgresql/9.6/bin", "/opt/postgresql/bin"}
	if !slices.Equal(dirs, want) {
		t.Fatalf("order %v, want %v", dirs, want)
	}
}
