package rotation

import "time"

// SetNow has batches end by another clock.
func (r *Resealer) SetNow(now func() time.Time) { r.now = now }
