// Package signature signs what Posthaste sends and checks what somebody received, as Standard Webhooks
// 1.0 says: v1 is HMAC-SHA256, v1a is Ed25519, and the signed content is "<id>.<unix seconds>.<body>".
package signature
