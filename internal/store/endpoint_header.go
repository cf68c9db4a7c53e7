package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/webhook"
)

const authorization = "Authorization"

// EndpointHeaders are the custom headers of an endpoint, name → value; never nil.
func (v View) EndpointHeaders(ctx context.Context, appRef, ref string) (map[string]string, error) {
	e, err := v.endpoint(v.db.WithContext(ctx), appRef, ref)
	if err != nil {
		return nil, failure("read endpoint headers", err)
	}
	return v.openHeaders(e)
}

// ReplaceEndpointHeaders sets all the custom headers of an endpoint.
func (v View) ReplaceEndpointHeaders(ctx context.Context, appRef, ref string, headers map[string]string) error {
	return v.changeEndpoint(ctx, "replace endpoint headers", appRef, ref, func(tx *gorm.DB, e webhook.Endpoint) error {
		return v.saveHeaders(tx, e, headers)
	})
}

// PatchEndpointHeaders sets and removes some of the custom headers of an endpoint. Names are compared
// without regard to case; set wins over remove.
func (v View) PatchEndpointHeaders(ctx context.Context, appRef, ref string, set map[string]string, remove []string) error {
	return v.changeEndpoint(ctx, "change endpoint headers", appRef, ref, func(tx *gorm.DB, e webhook.Endpoint) error {
		old, err := v.openHeaders(e)
		if err != nil {
			return err
		}
		headers, err := mergeHeaders(old, set, remove)
		if err != nil {
			return err
		}
		return v.saveHeaders(tx, e, headers)
	})
}

func (v View) saveHeaders(tx *gorm.DB, e webhook.Endpoint, headers map[string]string) error {
	sealed, err := v.sealHeaders(e.ID, headers)
	if err != nil {
		return err
	}
	return tx.Model(&webhook.Endpoint{}).Where("tenant_id = ? AND id = ?", e.TenantID, e.ID).
		UpdateColumns(map[string]any{"headers": sealed, "updated_at": v.store.now()}).Error
}

// mergeHeaders is old with set put over it and remove taken out. A header must not be sent twice
// because it is spelt in two ways.
func mergeHeaders(old, set map[string]string, remove []string) (map[string]string, error) {
	merged := maps.Clone(old)
	if merged == nil {
		merged = map[string]string{}
	}
	gone := slices.Concat(remove, slices.Collect(maps.Keys(set)))
	maps.DeleteFunc(merged, func(name, _ string) bool {
		return slices.ContainsFunc(gone, func(g string) bool { return strings.EqualFold(g, name) })
	})
	maps.Copy(merged, set)
	return merged, checkHeaders(merged)
}

// withAuthorization adds the URL's own credentials, unless the headers name others.
func withAuthorization(headers map[string]string, value webhook.Secret) map[string]string {
	if value.IsZero() {
		return headers
	}
	for name := range headers {
		if strings.EqualFold(name, authorization) {
			return headers
		}
	}
	headers = maps.Clone(headers)
	if headers == nil {
		headers = map[string]string{}
	}
	headers[authorization] = value.Reveal()
	return headers
}

func checkHeaders(headers map[string]string) error {
	if len(headers) > webhook.MaxHeaders {
		return webhook.Invalid("headers", "an endpoint has at most %d custom headers", webhook.MaxHeaders)
	}
	seen := map[string]bool{}
	for name := range headers {
		lower := strings.ToLower(name)
		if seen[lower] {
			return webhook.Invalid("headers", "header %q is named twice", name)
		}
		seen[lower] = true
	}
	return nil
}

func headersPlace(tenant webhook.TenantID, endpoint webhook.EndpointID) seal.AD {
	return seal.AD{Table: "endpoint", Column: "headers", Tenant: tenant, Row: endpoint}
}

// sealHeaders is the column's value; nil without headers.
func (v View) sealHeaders(endpoint webhook.EndpointID, headers map[string]string) ([]byte, error) {
	if len(headers) == 0 {
		return nil, nil
	}
	if err := checkHeaders(headers); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(headers)
	if err != nil {
		return nil, fmt.Errorf("encode headers: %w", err)
	}
	sealed, err := v.store.keys.Seal(plain, headersPlace(v.scope.Tenant, endpoint))
	if err != nil {
		return nil, fmt.Errorf("seal headers: %w", err)
	}
	return sealed, nil
}

func (v View) openHeaders(e webhook.Endpoint) (map[string]string, error) {
	headers, err := v.store.openHeaders(e.TenantID, e.ID, e.Headers)
	if headers == nil {
		headers = map[string]string{}
	}
	return headers, err
}
