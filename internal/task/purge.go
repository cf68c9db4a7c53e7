package task

import (
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// purgeRule erases every message: one whose payload is gone may still have answers.
func purgeRule(webhook.TaskFilter, store.TaskFact) verdict { return send }
