// Package chaos breaks a running installation on purpose and shows that it keeps its promise. Each
// fault gets a fresh installation of two API and two worker processes, built with failpoints, beside a
// real Postgres and Redis. A producer posts for three tenants and keeps a ledger, a sink receives and
// keeps another; when everything has settled the two are compared (package ledger). Where receivers
// are the fault, they are guests: of a tenant of their own, beside those of the load, which may not
// suffer. A fault that did not bite fails: it has shown nothing.
package chaos
