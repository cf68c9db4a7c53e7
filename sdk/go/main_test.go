package posthaste_test

import (
	"io"
	"log"
)

// quiet is for servers that are expected to complain.
var quiet = log.New(io.Discard, "", 0)
