module github.com/posthaste/posthaste/sdk/go

go 1.25.0
