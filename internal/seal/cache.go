package seal

import (
	"crypto/cipher"
	"sync"
)

// maxCached is how many data keys a generation of the cache holds; at about 1 KiB each, both
// generations together stay under 20 MiB.
const maxCached = 8192

type cacheKey struct {
	master int // index in the keyset
	tenant [16]byte
}

// cache keeps data keys, because deriving one costs more than opening a secret with it. It forgets by
// generations: when the young one is full it becomes the old one, and what is not asked for until the
// next turn is gone. That is nearly least-recently-used at the price of two maps.
type cache struct {
	mu         sync.RWMutex
	young, old map[cacheKey]cipher.AEAD
}

func (c *cache) find(k cacheKey, derive func() (cipher.AEAD, error)) (cipher.AEAD, error) {
	c.mu.RLock()
	aead, hit := c.young[k]
	if !hit {
		aead = c.old[k]
	}
	c.mu.RUnlock()
	if hit {
		return aead, nil
	}
	if aead == nil {
		var err error
		// Outside the lock: two callers may both derive, which is harmless as the results are equal.
		if aead, err = derive(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || len(c.young) >= maxCached {
		c.old, c.young = c.young, make(map[cacheKey]cipher.AEAD)
	}
	c.young[k] = aead
	return aead, nil
}

func (c *cache) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.young) + len(c.old)
}
