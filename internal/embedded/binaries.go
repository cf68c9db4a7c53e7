package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OldestMajor is the oldest major version of Postgres that Posthaste's SQL runs on.
const OldestMajor = 15

// versionLimit bounds how long a candidate may take to say its version.
const versionLimit = 10 * time.Second

var (
	// ErrNoPostgres means that no usable Postgres binaries were found; the error's text says how to
	// get some.
	ErrNoPostgres = errors.New("no usable Postgres found")
	// ErrOtherMajor means that a data directory was made by a major version of Postgres of which no
	// binaries were found. The data is left as it is.
	ErrOtherMajor = errors.New("data of another major version of Postgres")
)

const installHelp = `install one of:
  Debian, Ubuntu:     apt-get install postgresql
  macOS, Homebrew:    brew install postgresql@17
  anywhere with npm:  make postgres-bundle`

// systemGlobs are where packages put Postgres without putting it on PATH: Debian, PGDG's RPMs,
// Homebrew on its three prefixes, Postgres.app.
var systemGlobs = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// places are where binaries are looked for, in this order.
type places struct {
	binDir  string
	path    []string
	globs   []string
	bundles []string
}

// installation is a folder with working initdb and postgres.
type installation struct {
	bin     string
	major   int
	version string
}

// candidates are the folders that hold initdb and postgres, best first, each once.
func (p places) candidates() []string {
	var dirs []string
	add := func(dir string) {
		dir, err := filepath.Abs(dir) // the child runs in another working directory
		if err != nil {
			return
		}
		server, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres"))
		if err != nil {
			return
		}
		// What PATH names is often a link to one program; the server finds its libraries and initdb
		// finds the server beside the real one.
		dir = filepath.Dir(server)
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if p.binDir != "" {
		add(p.binDir)
	}
	for _, dir := range p.path {
		if filepath.IsAbs(dir) {
			add(dir)
		}
	}
	for _, glob := range p.globs {
		found, _ := filepath.Glob(glob)
		slices.SortStableFunc(found, func(a, b string) int { return majorInPath(b) - majorInPath(a) })
		for _, dir := range found {
			add(dir)
		}
	}
	return dirs
}

var digits = regexp.MustCompile(`\d+`)

// majorInPath is the version a folder's name claims, to try newer ones first; 0 when it claims none.
func majorInPath(dir string) int {
	major, _ := strconv.Atoi(digits.FindString(filepath.Base(filepath.Dir(dir))))
	return major
}

// choose finds the first installation that works and fits the data: want is the major version that
// made it, 0 for new data. copies is where an unreachable bundle is copied to.
func (p places) choose(ctx context.Context, who *account, want int, copies string, log *slog.Logger) (installation, error) {
	var skipped, majors []string
	try := func(bin string) (installation, bool) {
		found, err := probe(ctx, who, bin)
		switch {
		case err != nil:
			skipped = append(skipped, fmt.Sprintf("%s: %v", bin, err))
		case found.major < OldestMajor:
			skipped = append(skipped, fmt.Sprintf("%s: version %s is older than %d", bin, found.version, OldestMajor))
		case want != 0 && found.major != want:
			majors = append(majors, fmt.Sprintf("%d (%s)", found.major, bin))
		default:
			return found, true
		}
		return installation{}, false
	}
	for _, bin := range p.candidates() {
		if found, ok := try(bin); ok {
			logSkipped(log, skipped)
			return found, nil
		}
	}
	for _, dir := range p.bundles {
		native, ok := bundleNative(dir)
		if !ok {
			continue
		}
		bin, err := prepareBundle(native, copies, who)
		if err != nil {
			skipped = append(skipped, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		if found, ok := try(bin); ok {
			logSkipped(log, skipped)
			return found, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return installation{}, context.Cause(ctx)
	}
	if len(majors) > 0 {
		return installation{}, fmt.Errorf("%w: it was made by Postgres %d, and here is Postgres %s; install Postgres %d, or use another directory",
			ErrOtherMajor, want, strings.Join(majors, ", "), want)
	}
	needed := fmt.Sprintf("%d or newer", OldestMajor)
	if want != 0 {
		needed = fmt.Sprintf("%d, which made the data that is there", want)
	}
	reasons := ""
	if len(skipped) > 0 {
		reasons = " (unusable: " + strings.Join(skipped, "; ") + ")"
	}
	return installation{}, fmt.Errorf("%w: need version %s%s; %s", ErrNoPostgres, needed, reasons, installHelp)
}

func logSkipped(log *slog.Logger, skipped []string) {
	for _, reason := range skipped {
		log.Warn("skipped unusable Postgres binaries", "reason", reason)
	}
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// probe asks the server for its version, as the user who will run it: that also proves that this user
// can reach it and that its libraries load.
func probe(ctx context.Context, who *account, bin string) (installation, error) {
	ctx, cancel := context.WithTimeout(ctx, versionLimit)
	defer cancel()
	var said []string
	err := runChild(ctx, childSpec{
		path:    filepath.Join(bin, "postgres"),
		args:    []string{"--version"},
		account: who,
		line:    func(line string) { said = append(said, line) },
	})
	if err != nil {
		return installation{}, err
	}
	match := versionPattern.FindStringSubmatch(strings.Join(said, "\n"))
	if match == nil {
		return installation{}, errors.New("it does not say its version")
	}
	major, err := strconv.Atoi(match[2])
	if err != nil {
		return installation{}, fmt.Errorf("read version %q: %w", match[1], err)
	}
	return installation{bin: bin, major: major, version: match[1]}, nil
}
