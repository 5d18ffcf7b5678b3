// Package hostile measures what clients that mean harm cost the product's binary:
// its resident memory, and the latency of an honest client beside them. The
// hostile clients are a process of their own with the lowest priority, so that what
// is measured is what the service does for them, and not what they take from the
// machine.
package hostile
