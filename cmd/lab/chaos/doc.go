// Package chaos breaks a running installation on purpose and shows that it keeps its promise. Each
// fault gets a fresh installation of two API and two worker processes, built with failpoints, beside a
// real Postgres and Redis. A producer posts for three tenants and keeps a ledger, a sink receives and
// keeps another; when everything has settled the two are compared (package ledger). A fault that did
// not bite fails: it has shown nothing.
package chaos
