package infer

import "time"

// LookAt makes the server look at its workers' memory that often, as told by kb.
// Before the first Activate.
func (s *Server) LookAt(every time.Duration, kb func(pid int) int64) {
	s.look, s.private = every, kb
}
