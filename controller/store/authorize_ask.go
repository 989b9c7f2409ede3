package store

import "strings"

// putTalk judges a question to another host, or the answer to one: both go with a lease of
// who asks, so that they end with it.
func (r *review) putTalk(key string, value []byte) error {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(key, talkPrefix), "/")
	host, _, _ := strings.Cut(rest, "/")
	asked := askedPrefix(host) + strings.TrimPrefix(rest, host+"/")
	asker, _, ok := parseAsked(host, asked)
	switch {
	case !ok:
		return deny("not a question")
	case kind == "asked":
		return r.putQuestion(key, host, asker, value)
	case kind == "answered":
		return r.putAnswer(key, host, asked)
	}
	return deny("not a question")
}

func (r *review) putQuestion(key, host, asker string, value []byte) error {
	switch {
	case asker != r.host:
		return deny("it is another host's question")
	case host == r.host:
		return deny("a host does not ask itself")
	case len(value) > maxQuestion:
		return deny("a question of more than %d bytes", maxQuestion)
	case !r.owns(r.leased[key]):
		return deny("a question without a lease of the host's")
	}
	_, err := r.there(hostKey(host))
	return err
}

func (r *review) putAnswer(key, host, asked string) error {
	if host != r.host {
		return deny("it is another host's answer")
	}
	question, err := r.get(asked)
	switch {
	case err != nil:
		return err
	case question == nil:
		return deny("nobody asks")
	case question.Lease == 0 || question.Lease != r.leased[key]:
		return deny("an answer without the lease of its question")
	}
	return nil
}
