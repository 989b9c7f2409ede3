package openflow

import (
	"fmt"

	"nuage/ovs/flow"
)

// Error is a request that the switch refused.
type Error struct {
	Type, Code uint16
	Name       string     // ovs's name, such as OFPBMC_BAD_PREREQ
	Flow       *flow.Flow // the flow that it refused, if it was one
	Delete     bool       // it refused to delete that flow, not to add it
}

func (e *Error) Error() string {
	switch {
	case e.Flow == nil:
		return "the switch refused: " + e.Name
	case e.Delete:
		return fmt.Sprintf("the switch refused to delete flow %v: %s", e.Flow, e.Name)
	}
	return fmt.Sprintf("the switch refused flow %v: %s", e.Flow, e.Name)
}

const errorExperimenter = 0xffff

func decodeError(m message) *Error {
	if len(m.body) < 4 {
		return &Error{Name: "error message cut short"}
	}
	e := &Error{Type: be.Uint16(m.body), Code: be.Uint16(m.body[2:])}
	ok := false
	if e.Type != errorExperimenter {
		e.Name, ok = errorNames[[2]uint16{e.Type, e.Code}]
	} else if len(m.body) >= 8 && be.Uint32(m.body[4:]) == vendorNicira {
		e.Name, ok = extensionErrorNames[e.Code]
	}
	if !ok {
		e.Name = fmt.Sprintf("error type %d code %d", e.Type, e.Code)
	}
	return e
}
