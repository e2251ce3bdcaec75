// Package ingest is the stage that accepts frames and events from trainers, and publishes each
// as one record. Frames come over HTTP and from the raw topic, and go to the seed-metrics
// topic. Events come over HTTP (POST /v1/events), and go to the topics of events.
//
//	POST /v1/frames --> header --> a slot --> read, inflate --> decode --> validate --> publish --> 200
//	                      |          |             |              |           |            |
//	                   400, 415     429      400, 408, 413    400, 415     400, 413       503
//
// A request is accepted as a whole or not at all. All its frames are validated before the first
// is published. The answer is 200 only after the bus has acknowledged all of them, or 202 if
// they are in the spool (package forward). After 503 it is not known which frames the bus has.
// The client then sends the same frames again, and repeats are folded once.
//
// After validation and before publishing, tensors above a threshold are stored in the
// tensor store, and tensors that frames have claims of are looked up there. So no
// record refers to a tensor that is not in the store. If the store does not answer, the
// request gets 503 and none of its frames is published. Requests without such tensors
// are not affected. PUT /v1/tensors stores a single tensor and answers with its claim.
//
// A [Stage] serves HTTP. [Raw] does the same with the records of the raw topic. Both
// decode and validate with package intake, and share one sink, which stores tensors and
// publishes. The file problem.go has the HTTP status of each refusal.
package ingest
