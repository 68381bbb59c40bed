package docs

import _ "embed"

// OpenAPI describes the REST API, /v1: OpenAPI 3.1. It is made of the table of
// routes and the types of package client by go test ./internal/serve/api -update.
//
//go:embed openapi.yaml
var OpenAPI []byte
