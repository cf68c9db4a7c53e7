package store_test

import (
	"testing"

	"github.com/posthaste/posthaste/internal/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }
