package api

import (
	"encoding/json"
	"sync"

	"gopkg.in/yaml.v3"

	"github.com/mailgrant/mailgrant/docs"
)

// openAPIJSON is the document in JSON, made when it is first asked for. The
// document itself is made of the table by a test, which holds the two together.
var openAPIJSON = sync.OnceValue(func() []byte {
	var v map[string]any
	if err := yaml.Unmarshal(docs.OpenAPI, &v); err != nil {
		panic("docs/openapi.yaml: " + err.Error()) // it is part of the program and proven by its tests
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic("docs/openapi.yaml: " + err.Error())
	}
	return append(b, '\n')
})
