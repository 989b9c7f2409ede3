// Package archtest holds the design's rules about the code as tests: who may import
// whom, what each package says of itself, how long a file may be. It has no code and is
// never imported.
package archtest
