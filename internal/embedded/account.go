package embedded

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// serverAccounts are who Postgres runs as when we are root, which it refuses to be: the first that
// exists.
var serverAccounts = []string{"postgres", "nobody"}

// account is the user a child runs as; nil is the user we are.
type account struct {
	name     string
	uid, gid uint32
}

// postgresAccount is who must run the cluster in data: nobody else but us, unless we are root. An
// existing cluster keeps its owner, so that what an ordinary user made also starts under sudo.
func postgresAccount(data string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 {
			return &account{name: accountName(owner.Uid), uid: owner.Uid, gid: owner.Gid}, nil
		}
	}
	for _, name := range serverAccounts {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, fmt.Errorf("postgres does not run as root, and there is no user named %q to run it as", serverAccounts)
}

func accountName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if found, err := user.LookupId(id); err == nil {
		return found.Username
	}
	return id
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// own makes sure that path is a directory only the account can enter. Nothing that was there before
// under another owner is taken over.
func (a *account) own(path string) error {
	err := os.Mkdir(path, 0o700)
	if err == nil && a != nil {
		err = os.Chown(path, int(a.uid), int(a.gid))
	}
	if err == nil {
		return nil
	}
	if !os.IsExist(err) {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	uid := uint32(os.Geteuid())
	if a != nil {
		uid = a.uid
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != uid {
		return fmt.Errorf("%s belongs to user %q, not to %q: run as that user, or use another directory",
			path, accountName(owner), accountName(uid))
	}
	return os.Chmod(path, 0o700)
}

// reach says whether the account can enter path and every directory above it. Parts that do not
// exist yet are no obstacle.
func (a *account) reach(path string) error {
	if a == nil {
		return nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for {
		resolved, err := filepath.EvalSymlinks(path)
		if err == nil {
			path = resolved
			break
		}
		if !os.IsNotExist(err) || path == filepath.Dir(path) {
			return err
		}
		path = filepath.Dir(path)
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.IsDir() && !a.enters(info) {
			return fmt.Errorf("user %q cannot enter %s (mode %#o)", a.name, dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (a *account) enters(info fs.FileInfo) bool {
	owner := info.Sys().(*syscall.Stat_t)
	switch {
	case owner.Uid == a.uid:
		return info.Mode()&0o100 != 0
	case owner.Gid == a.gid:
		return info.Mode()&0o010 != 0
	}
	return info.Mode()&0o001 != 0
}
