package worker

import "testing"

func TestStampedBuild(t *testing.T) {
	linked := ReadBuild()
	t.Cleanup(func() { stampedVersion, stampedRevision = "", "" })

	stampedVersion = "0.1.0"
	if got, want := ReadBuild(), (Build{"0.1.0", linked.Revision, linked.Go}); got != want {
		t.Errorf("with a version: %+v, want %+v", got, want)
	}
	stampedRevision = "0123abcd"
	if got, want := ReadBuild().String(), "0.1.0 0123abcd "+linked.Go; got != want {
		t.Errorf("with both: %q, want %q", got, want)
	}
}
