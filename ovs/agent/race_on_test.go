//go:build race

package agent

// raceDetector is on: times mean nothing.
const raceDetector = true
