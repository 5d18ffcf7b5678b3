package httpapi

// State is the state of a Server, as GET /health tells it.
type State string

// The states, which are upstream's.
const (
	StateIdle     State = "idle"     // not serving yet
	StateRunning  State = "running"  // serving
	StateDraining State = "draining" // serving, about to stop: send new requests elsewhere
	StateStopped  State = "stopped"  // not serving any more
)

// State returns the current state.
func (s *Server) State() State { return s.state.Load().(State) }

// SetState changes the state. Serve and Shutdown do it on their own; it is for
// those who run the handler in a server of theirs.
func (s *Server) SetState(state State) { s.state.Store(state) }

func (s *Server) health() response {
	state := s.State()
	status := 200
	if state != StateRunning && state != StateDraining {
		status = 503
	}
	return jsonResponse(status, `{"state":"`+string(state)+`"}`)
}
