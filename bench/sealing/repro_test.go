package sealing
import ("testing";"context";"sync";"time";"bytes")
func TestRepro(t *testing.T) {
	fails := 0
	for i := range 300 {
		s, end, err := newRing(context.Background())
		if err != nil { t.Fatal(err) }
		_, _, err = s.prepare(bytes.Repeat([]byte("x"),64), []byte("aad"))
		if err != nil { fails++; t.Log(i, err) }
		end()
	}
	t.Log("start fails", fails)
	s, end, err := newRing(context.Background())
	if err != nil { t.Fatal(err) }
	defer end()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 2 { wg.Go(func() {
		seal, _, err := s.prepare(bytes.Repeat([]byte("x"),64), []byte("aad"))
		if err != nil { t.Error(err); return }
		for b := time.Now(); time.Since(b) < 15*time.Second; {
			if err := seal(); err != nil { mu.Lock(); t.Error(time.Since(b), err); mu.Unlock(); return }
		}
	}) }
	wg.Wait()
}
