package rig

import (
	"encoding/json"
	"fmt"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// API makes the few calls that set a scene, as a tenant would. It is not safe for concurrent use.
type API struct {
	client  wire.Client
	headers string
}

// NewAPI speaks to an API process with a key; Close it.
func NewAPI(address, key string) *API {
	return &API{
		client:  wire.Client{Address: address},
		headers: "Authorization: Bearer " + key + "\r\nContent-Type: application/json\r\n",
	}
}

// Close drops the connection.
func (a *API) Close() { a.client.Close() }

// Application makes an application and returns its id.
func (a *API) Application(name string) (string, error) {
	return a.create("/api/v1/app", map[string]string{"name": name, "uid": name})
}

// Endpoint makes an endpoint and returns its id; an empty secret lets the product choose one.
func (a *API) Endpoint(application, url, secret string) (string, error) {
	body := map[string]string{"url": url}
	if secret != "" {
		body["secret"] = secret
	}
	return a.create("/api/v1/app/"+application+"/endpoint", body)
}

// OrderedEndpoint is Endpoint for one that takes its messages in order, and goes on when one has used up its
// attempts.
func (a *API) OrderedEndpoint(application, url, secret string) (string, error) {
	return a.create("/api/v1/app/"+application+"/endpoint", map[string]string{
		"url": url, "secret": secret, "ordering": "fifo", "onExhausted": "skip",
	})
}

// DeleteEndpoint deletes an endpoint.
func (a *API) DeleteEndpoint(application, endpoint string) error {
	path := "/api/v1/app/" + application + "/endpoint/" + endpoint
	answer, err := a.client.Do("DELETE", path, a.headers, nil)
	if err != nil {
		return err
	}
	if answer.Status != 204 {
		return fmt.Errorf("DELETE %s: answered %d %s", path, answer.Status, answer.Body)
	}
	return nil
}

func (a *API) create(path string, body map[string]string) (string, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("POST %s: %w", path, err)
	}
	answer, err := a.client.Do("POST", path, a.headers, text)
	if err != nil {
		return "", err
	}
	var created struct{ ID string }
	if answer.Status != 201 {
		return "", fmt.Errorf("POST %s: answered %d %s", path, answer.Status, answer.Body)
	}
	if err := json.Unmarshal(answer.Body, &created); err != nil || created.ID == "" {
		return "", fmt.Errorf("POST %s: no id in %s", path, answer.Body)
	}
	return created.ID, nil
}

// Patch changes some fields of what is at a path.
func (a *API) Patch(path string, fields any) error {
	text, err := json.Marshal(fields)
	if err != nil {
		return fmt.Errorf("PATCH %s: %w", path, err)
	}
	answer, err := a.client.Do("PATCH", path, a.headers, text)
	if err != nil {
		return err
	}
	if answer.Status != 200 {
		return fmt.Errorf("PATCH %s: answered %d %s", path, answer.Status, answer.Body)
	}
	return nil
}
