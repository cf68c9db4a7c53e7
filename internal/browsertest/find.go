package browsertest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// variable names a browser that is to be used instead of what is found.
const variable = "CHROME_BIN"

// names are what packages call their Chromium or Chrome, or where they put it.
var names = []string{
	"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell",
	"/Applications/Chromium.app/Contents/MacOS/Chromium",
	"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
}

// downloads are where test tools keep the browsers that they have fetched, below the home directory.
var downloads = []string{
	".cache/ms-playwright/chromium-*/chrome-linux*/chrome",
	".cache/puppeteer/chrome/*/chrome-linux64/chrome",
	"Library/Caches/ms-playwright/chromium-*/chrome-mac*/Chromium.app/Contents/MacOS/Chromium",
}

// Find is the path of a browser on this machine; false = there is none. The Makefile looks at the same
// places.
func Find() (path string, found bool) {
	if path = os.Getenv(variable); path != "" {
		return path, true
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", false
	}
	for _, pattern := range downloads {
		paths, _ := filepath.Glob(filepath.Join(home, pattern))
		slices.Sort(paths)
		for _, path := range slices.Backward(paths) { // the newest has the highest number
			if _, err := exec.LookPath(path); err == nil {
				return path, true
			}
		}
	}
	return "", false
}
