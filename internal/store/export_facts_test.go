package store

// FactsSQL is what a task reads of its messages.
const FactsSQL = taskFactsSQL
