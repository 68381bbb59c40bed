// Package docs holds the documents of mailgrant, so that a running mailgrant can
// show those of its own version.
package docs

import "embed"

//go:embed *.md decisions/*.md
var Files embed.FS
