// Package egress is the one HTTP client for every address a stranger can choose: deliveries, test
// sends, URL checks. It knows where requests may go, and nothing else of Posthaste does.
//
// Three walls stand behind one another, and each holds without the others:
//
//	Policy.CheckURL   the text of a URL, when it is stored and again before it is requested
//	dialer.allowed    every address a name resolves to, before anything is dialled
//	dialer.control    the concrete address, inside the dial, after which nothing can change it
//
// The last one is the wall that counts: a name may resolve to a public address when it is checked
// and to a private one when it is dialled, so only the address the kernel is given is proof.
//
// One Send is at most one request on the wire. It has one deadline over name lookup, connect, TLS,
// headers and body; it follows no redirect, decodes no compression, uses no proxy and speaks HTTP/1.1
// only; what it takes in is capped in every dimension.
//
// The HTTP/1.1 client is our own (exchange.go and what it uses), where others take net/http's. Sending
// is what this product does, and net/http's transport was half of a worker's work: two goroutines a
// connection, and hand-offs between them for every request. Here a request is one write, and its
// answer is read by who sent it, under one deadline of the connection. What a browser's client has
// (redirects, proxies, HTTP/2, cookies, streams) is not needed here. Tests and a fuzzer hold how answers
// are read against net/http: what it refuses is refused.
//
// The texts in a Result are written for the endpoint's owner: they never say which address or port was
// refused, or a private network could be mapped by reading them.
package egress
