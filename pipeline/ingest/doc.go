// Package ingest is the stage that takes frames from trainers over HTTP and
// publishes each as one record of the seed-metrics topic.
//
//	POST /v1/frames --> header --> a slot --> read, inflate --> decode --> validate --> publish --> 200
//	                      |          |             |              |           |            |
//	                   400, 415     429      400, 408, 413    400, 415     400, 413       503
//
// A request is taken whole or not at all: every frame is validated before the
// first is published, and 200 is said only once the bus has acknowledged all.
// After 503 it is unknown what the bus has; the client sends the same frames
// again, and a repeat is folded once.
//
// Between validating and publishing, tensors above a threshold go to the tensor
// store, and those that clients have claims of are asked for: a record refers to
// what is there. When the store does not answer, that request is 503 and none of
// its frames is published; requests without such tensors flow.
// PUT /v1/tensors takes a tensor by itself and answers with its claim.
//
// [Raw] does the same with the records of the raw topic.
package ingest
