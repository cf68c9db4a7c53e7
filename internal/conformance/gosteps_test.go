package conformance_test

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	svix "github.com/svix/svix-webhooks/go"
	"github.com/svix/svix-webhooks/go/models"
	"github.com/svix/svix-webhooks/go/utils"
)

func (s scenario) health() { s.ok(s.client.Health.Get(s.Context())) }

func (s scenario) createApplication() {
	apps := s.client.Application
	made := must(apps.Create(s.Context(), models.ApplicationIn{
		Name: "Acme", Uid: new(customer), Metadata: &map[string]string{"plan": "pro"}, ThrottleRate: new(uint16(100)),
	}, nil))(s)
	s.want("what was sent", made.Name == "Acme" && *made.Uid == customer && made.Metadata["plan"] == "pro" && *made.ThrottleRate == 100 &&
		strings.HasPrefix(made.Id, "app_") && !made.CreatedAt.IsZero(), made)
	s.want("found by uid", must(apps.Get(s.Context(), customer))(s).Id == made.Id, nil)
	existing := must(apps.GetOrCreate(s.Context(), models.ApplicationIn{Name: "Another name", Uid: new(customer)}, nil))(s)
	s.want("unchanged", existing.Id == made.Id && existing.Name == "Acme", existing)
	_, err := apps.Create(s.Context(), models.ApplicationIn{Name: "Acme", Uid: new(customer)}, nil)
	body := s.refused(err, http.StatusConflict)
	s.want("a conflict", body.Code == "conflict", body)
}

func (s scenario) changeApplication() {
	apps := s.client.Application
	got := must(apps.Update(s.Context(), customer, models.ApplicationIn{Name: "Acme GmbH", Uid: new(customer)}))(s)
	s.want("replaced", got.Name == "Acme GmbH" && len(got.Metadata) == 0 && got.ThrottleRate == nil, got)
	id := got.Id
	must(apps.Patch(s.Context(), id, models.ApplicationPatch{Metadata: &map[string]string{"a": "b"}, ThrottleRate: utils.NewNullable(uint16(7))}))(s)
	got = must(apps.Patch(s.Context(), id, models.ApplicationPatch{Name: new("Acme")}))(s)
	s.want("changed in part", *got.Uid == customer && got.Name == "Acme" && got.Metadata["a"] == "b" && *got.ThrottleRate == 7 && *got.RateLimit == 7, got)
	got = must(apps.Patch(s.Context(), id, models.ApplicationPatch{Uid: null[string](), RateLimit: null[uint16]()}))(s)
	s.want("cleared by null", got.Uid == nil && got.ThrottleRate == nil, got)
	_, err := apps.Get(s.Context(), customer)
	s.refused(err, http.StatusNotFound)
	must(apps.Patch(s.Context(), id, models.ApplicationPatch{Uid: utils.NewNullable(customer)}))(s)
}

func (s scenario) listApplications() {
	apps := s.client.Application
	for _, name := range []string{"List 1", "List 2", "List 3", "List 4"} {
		must(apps.Create(s.Context(), models.ApplicationIn{Name: name}, nil))(s)
	}
	for _, order := range []models.Ordering{models.ORDERING_ASCENDING, models.ORDERING_DESCENDING} {
		s.walk(5, func(limit *uint64, iterator *string) (page, error) {
			got, err := apps.List(s.Context(), &svix.ApplicationListOptions{Limit: limit, Iterator: iterator, Order: &order})
			if err != nil {
				return page{}, err
			}
			return page{names(got.Data, func(a models.ApplicationOut) string { return a.Id }), got.Iterator, got.PrevIterator, got.Done}, nil
		})
	}
	gone := must(apps.Create(s.Context(), models.ApplicationIn{Name: "Gone"}, nil))(s)
	s.ok(apps.Delete(s.Context(), gone.Id))
	_, err := apps.Get(s.Context(), gone.Id)
	s.refused(err, http.StatusNotFound)
}

func (s scenario) eventTypes() {
	types := s.client.EventType
	schemas := map[string]any{"1": map[string]any{"type": "object"}}
	for _, name := range []string{"invoice.paid", "invoice.void", "user.created"} {
		made := must(types.Create(s.Context(), models.EventTypeIn{Name: name, Description: "d", Schemas: &schemas, FeatureFlags: []string{"beta"}, GroupName: new("g")}, nil))(s)
		s.want("what was sent", made.Name == name && !made.Deprecated && slices.Equal(made.FeatureFlags, []string{"beta"}) && *made.FeatureFlag == "beta", made)
	}
	_, err := types.Create(s.Context(), models.EventTypeIn{Name: "invoice.paid", Description: "d"}, nil)
	body := s.refused(err, http.StatusConflict)
	s.want("a conflict", body.Code == "event_type_exists", body)
	s.walk(3, func(limit *uint64, iterator *string) (page, error) {
		got, err := types.List(s.Context(), &svix.EventTypeListOptions{Limit: limit, Iterator: iterator})
		if err != nil {
			return page{}, err
		}
		return page{names(got.Data, func(e models.EventTypeOut) string { return e.Name }), got.Iterator, got.PrevIterator, got.Done}, nil
	})
	with := must(types.List(s.Context(), &svix.EventTypeListOptions{WithContent: new(true)}))(s)
	s.want("with its schemas", reflect.DeepEqual(*with.Data[0].Schemas, schemas), with)
	got := must(types.Patch(s.Context(), "invoice.paid", models.EventTypePatch{
		Schemas: null[map[string]any](), FeatureFlags: null[[]string](), GroupName: null[string](), Description: new("paid"),
	}))(s)
	s.want("cleared by null", got.Schemas == nil && got.FeatureFlags == nil && got.FeatureFlag == nil && got.GroupName == nil && got.Description == "paid", got)
	got = must(types.Update(s.Context(), "invoice.paid", models.EventTypeUpdate{Description: "replaced", Deprecated: new(true)}))(s)
	s.want("replaced", got.Description == "replaced" && got.Deprecated, got)
	s.ok(types.Delete(s.Context(), "invoice.void", nil))
	got = must(types.Get(s.Context(), "invoice.void"))(s)
	s.want("archived", *got.Archived, got)
	archived := must(types.List(s.Context(), &svix.EventTypeListOptions{IncludeArchived: new(true)}))(s)
	s.want("listed when asked for", len(archived.Data) == 3 && len(must(types.List(s.Context(), nil))(s).Data) == 2, archived)
	s.ok(types.Delete(s.Context(), "invoice.void", &svix.EventTypeDeleteOptions{Expunge: new(true)}))
	_, err = types.Get(s.Context(), "invoice.void")
	s.refused(err, http.StatusNotFound)
	imported := must(types.ImportOpenapi(s.Context(), models.EventTypeImportOpenApiIn{SpecRaw: new(openapi)}, nil))(s)
	s.want("imported", slices.Equal(imported.Data.Modified, []string{"imported.type"}), imported)
	s.ok(types.Delete(s.Context(), "imported.type", &svix.EventTypeDeleteOptions{Expunge: new(true)}))
}

// openapi describes one webhook.
const openapi = `{"openapi":"3.1.0","info":{"title":"t","version":"1"},"webhooks":{"imported.type":{"post":{
	"description":"d","requestBody":{"content":{"application/json":{"schema":{"type":"object"}}}}}}}}`

func (s scenario) endpoints() {
	endpoints := s.client.Endpoint
	at := s.receiver.url + "/main"
	made := must(endpoints.Create(s.Context(), customer, models.EndpointIn{
		Url: at, Uid: new(mainHook), Description: new("d"), FilterTypes: []string{"invoice.paid"}, Channels: []string{"eu", "us"},
		Metadata: &map[string]string{"a": "b"}, RateLimit: new(uint16(50)),
	}, nil))(s)
	s.want("what was sent", made.Url == at && !*made.Disabled && slices.Equal(made.FilterTypes, []string{"invoice.paid"}) && len(made.Channels) == 2 &&
		made.Metadata["a"] == "b" && *made.ThrottleRate == 50 && made.Version == 1, made)
	patched := must(endpoints.Patch(s.Context(), customer, made.Id, models.EndpointPatch{
		FilterTypes: null[[]string](), Channels: null[[]string](), ThrottleRate: null[uint16](), Uid: null[string](),
	}))(s)
	s.want("cleared by null", patched.FilterTypes == nil && patched.Channels == nil && patched.ThrottleRate == nil && patched.Uid == nil && patched.Description == "d", patched)
	replaced := must(endpoints.Update(s.Context(), customer, made.Id, models.EndpointUpdate{Url: at, Uid: new(mainHook), FilterTypes: []string{"invoice.paid"}}))(s)
	s.want("replaced", replaced.Id == made.Id && replaced.Description == "" && len(replaced.Metadata) == 0, replaced)
	s.want("found by uid", must(endpoints.Get(s.Context(), customer, mainHook))(s).Id == made.Id, nil)
	for range 4 {
		must(endpoints.Create(s.Context(), customer, models.EndpointIn{Url: at, Disabled: new(true)}, nil))(s)
	}
	for _, order := range []models.Ordering{models.ORDERING_ASCENDING, models.ORDERING_DESCENDING} {
		s.walk(5, func(limit *uint64, iterator *string) (page, error) {
			got, err := endpoints.List(s.Context(), customer, &svix.EndpointListOptions{Limit: limit, Iterator: iterator, Order: &order})
			if err != nil {
				return page{}, err
			}
			return page{names(got.Data, func(e models.EndpointOut) string { return e.Id }), got.Iterator, got.PrevIterator, got.Done}, nil
		})
	}
	gone := must(endpoints.Create(s.Context(), customer, models.EndpointIn{Url: at}, nil))(s)
	s.ok(endpoints.Delete(s.Context(), customer, gone.Id))
	_, err := endpoints.Get(s.Context(), customer, gone.Id)
	s.refused(err, http.StatusNotFound)
	_, err = endpoints.Create(s.Context(), customer, models.EndpointIn{Url: "ftp://example.com"}, nil)
	body := s.refused(err, http.StatusUnprocessableEntity)
	s.want("about the URL", slices.Equal(body.at(), []string{"body.url"}), body)
}

func (s scenario) headers() {
	endpoints := s.client.Endpoint
	s.ok(endpoints.UpdateHeaders(s.Context(), customer, mainHook, models.EndpointHeadersIn{
		Headers: map[string]string{"X-One": "1", "X-Two": "2", "Authorization": "Bearer secret"},
	}))
	s.ok(endpoints.PatchHeaders(s.Context(), customer, mainHook, models.EndpointHeadersPatchIn{
		Headers: map[string]string{"X-Three": "3"}, DeleteHeaders: []string{"X-One"},
	}))
	got := must(endpoints.GetHeaders(s.Context(), customer, mainHook))(s)
	s.want("what was set", reflect.DeepEqual(got.Headers, map[string]string{"X-Two": "2", "X-Three": "3"}) &&
		slices.Equal(got.Sensitive, []string{"Authorization"}), got)
	s.refused(endpoints.UpdateHeaders(s.Context(), customer, mainHook, models.EndpointHeadersIn{Headers: map[string]string{"Host": "x"}}), http.StatusUnprocessableEntity)
}
