// Package tensors turns the tensors of frames into files that NumPy reads.
//
//	DIR/tensors/HASH-float32-64x64.npy
//
// HASH is the SHA-256 of the elements, in hexadecimal, as in the claim: the bytes after
// the header of the file have it. numpy.load reads a file, and numpy.memmap can map it.
//
// NumPy has no bfloat16. Such a tensor is an array of the type V2, in which each element
// is two bytes. Arithmetic with it fails, and these read it:
//
//	numpy.load(f).view(ml_dtypes.bfloat16)
//	(numpy.load(f).view("<u2").astype("<u4") << 16).view("<f4")    # exact
package tensors
