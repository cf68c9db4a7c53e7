package egress

import "slices"

// refusedPorts are ports on which something else than a webhook receiver answers. Half of them are
// the ports that browsers refuse (WHATWG Fetch, "bad port"): line-based protocols such as SMTP that
// could be talked into reading our request as commands. The others are databases, brokers and control
// planes that are found on public addresses by accident.
var refusedPorts = func() map[uint16]bool {
	ports := []uint16{
		// WHATWG Fetch.
		1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104,
		109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515,
		526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049,
		3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
		// Databases and caches.
		1433, 1434, 1521, 3306, 5432, 5433, 5984, 6379, 6380, 7000, 7001, 7199, 9042, 9160, 9200, 9300, 11211,
		16379, 26257, 26379, 27017, 27018, 27019,
		// Brokers.
		1883, 4222, 5671, 5672, 9092, 15672, 61616,
		// Control planes and configuration stores.
		2181, 2375, 2376, 2377, 2379, 2380, 4369, 8200, 8300, 8301, 8302, 8500, 8600, 10248, 10249, 10250, 10255,
		10256, 10257, 10259,
		// Remote access and file sharing.
		445, 873, 3389, 5900, 5985, 5986,
	}
	set := make(map[uint16]bool, len(ports))
	for _, port := range ports {
		set[port] = true
	}
	return set
}()

// AllowsPort reports whether deliveries may connect to a port: any but 0 and the refused ones, of
// which AllowPorts opens some.
func (p Policy) AllowsPort(port uint16) bool {
	return port != 0 && (!refusedPorts[port] || slices.Contains(p.AllowPorts, port))
}
