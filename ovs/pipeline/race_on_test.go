//go:build race

package pipeline

// raceDetector is on: times mean nothing.
const raceDetector = true
