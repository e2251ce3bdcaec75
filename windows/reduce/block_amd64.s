//go:build !purego

#include "textflag.h"

// SSE2, which every amd64 has, and where the processor has them AVX (sumFours,
// firstBeyond, lanesOf), AVX2 (countMarkedNaN32) and the shuffles of SSSE3
// (splitSigns, markActive).
// See block.go for what each does.

// func sumFours(s *sums, values []float32, shift float64)
TEXT ·sumFours(SB), NOSPLIT, $0-40
	MOVQ   s+0(FP), DI
	MOVQ   values_base+8(FP), SI
	MOVQ   values_len+16(FP), CX
	MOVSD  shift+32(FP), X0
	UNPCKLPD X0, X0
	MOVUPD 0(DI), X1  // d
	MOVUPD 16(DI), X2 // squares
	MOVUPS 32(DI), X3 // least
	MOVUPS 48(DI), X4 // greatest
	SHRQ   $2, CX
	JZ     summed
	CMPB   ·hasAVX(SB), $0
	JE     four
	VUNPCKLPD   X2, X1, X5 // one sum of each kind
	VUNPCKHPD   X2, X1, X6
	VINSERTF128 $1, X6, Y5, Y1
	VBROADCASTSD shift+32(FP), Y0

wide:
	VMOVUPS   (SI), X5
	VMINPS    X5, X3, X3
	VMAXPS    X5, X4, X4
	VCVTPS2PD X5, Y6
	VSUBPD    Y0, Y6, Y6
	VMULPD    Y6, Y6, Y7
	VHADDPD   Y7, Y6, Y6 // d0+d1, their squares, d2+d3, their squares
	VADDPD    Y6, Y1, Y1
	ADDQ      $16, SI
	DECQ      CX
	JNZ       wide
	VEXTRACTF128 $1, Y1, X6
	VUNPCKHPD    X6, X1, X2
	VUNPCKLPD    X6, X1, X1
	VZEROUPPER
	JMP          summed

four:
	MOVUPS   (SI), X5
	MINPS    X5, X3
	MAXPS    X5, X4
	PSHUFD   $0x08, X5, X6 // x0, x2
	PSHUFD   $0x0D, X5, X7 // x1, x3
	CVTPS2PD X6, X6
	CVTPS2PD X7, X7
	SUBPD    X0, X6
	SUBPD    X0, X7
	MOVAPD   X6, X8
	ADDPD    X7, X8
	ADDPD    X8, X1        // d0+d1, d2+d3
	MULPD    X6, X6
	MULPD    X7, X7
	ADDPD    X7, X6
	ADDPD    X6, X2
	ADDQ     $16, SI
	DECQ     CX
	JNZ      four

summed:
	MOVUPD X1, 0(DI)
	MOVUPD X2, 16(DI)
	MOVUPS X3, 32(DI)
	MOVUPS X4, 48(DI)
	RET

// BITS, the bits of a float32, become its place in counts; AX is used on the
// way. R8 has the corrections, R9 first. The shifts and the mask are cellBits,
// cellCount-1 and bucketBits.
#define PLACE(BITS) \
	MOVL BITS, AX         \
	SHRL $17, AX          \
	ANDL $63, AX          \
	ADDL (R8)(AX*4), BITS \
	SHRL $18, BITS        \
	SUBL R9, BITS

// func countBlock(counts []uint32, first uint32, values []float32) int
TEXT ·countBlock(SB), NOSPLIT, $0-64
	MOVQ counts_base+0(FP), DI
	MOVQ counts_len+8(FP), DX
	MOVL first+24(FP), R9
	LEAQ ·corrections(SB), R8
	MOVQ values_base+32(FP), SI
	MOVQ values_len+40(FP), CX
	SUBQ $4, CX
	JLT  rest

fours:
	MOVL 0(SI), R10
	MOVL 4(SI), R11
	MOVL 8(SI), R12
	MOVL 12(SI), R13
	PLACE(R10)
	PLACE(R11)
	PLACE(R12)
	PLACE(R13)
	CMPL R10, DX
	JAE  rest
	CMPL R11, DX
	JAE  rest
	CMPL R12, DX
	JAE  rest
	CMPL R13, DX
	JAE  rest
	INCL (DI)(R10*4)
	INCL (DI)(R11*4)
	INCL (DI)(R12*4)
	INCL (DI)(R13*4)
	ADDQ $16, SI
	SUBQ $4, CX
	JGE  fours

rest: // one at a time, up to one that is not within counts
	ADDQ $4, CX
	JZ   counted

one:
	MOVL (SI), R10
	PLACE(R10)
	CMPL R10, DX
	JAE  counted
	INCL (DI)(R10*4)
	ADDQ $4, SI
	DECQ CX
	JNZ  one

counted:
	MOVQ values_base+32(FP), AX
	SUBQ AX, SI
	SHRQ $2, SI
	MOVQ SI, ret+56(FP)
	RET

// func splitSigns(values []float32, positive, negative *chunk) (p, n int)
//
// Of four values, those that are wanted are shuffled to the beginning, and all
// four places are written: what follows overwrites the rest.
TEXT ·splitSigns(SB), NOSPLIT, $0-56
	MOVQ values_base+0(FP), SI
	MOVQ values_len+8(FP), CX
	MOVQ positive+24(FP), R8
	MOVQ negative+32(FP), R9
	XORQ R10, R10 // p
	XORQ R11, R11 // n
	CMPB ·canShuffle(SB), $0
	JE   singly
	SUBQ $4, CX
	JLT  few
	LEAQ ·gathering(SB), R12
	LEAQ ·gathered(SB), R13
	PCMPEQL X7, X7
	MOVOU   X7, X6
	PSRLL   $1, X7  // 0x7fffffff: all but the sign
	PSRLL   $31, X6
	PSLLL   $23, X6 // 0x00800000: zeroBits

fours:
	MOVOU    (SI), X0
	MOVOU    X0, X1
	PAND     X7, X1
	MOVOU    X1, X2
	PCMPGTL  X6, X2 // beyond the zero bucket
	MOVOU    X0, X3
	PSRAL    $31, X3
	PAND     X2, X3 // negative besides
	MOVMSKPS X2, AX
	MOVMSKPS X3, BX
	XORL     BX, AX
	MOVBLZX  (R13)(AX*1), DX
	MOVBLZX  (R13)(BX*1), DI
	SHLL     $4, AX
	SHLL     $4, BX
	MOVOU    (R12)(AX*1), X4
	MOVOU    (R12)(BX*1), X5
	PSHUFB   X4, X0
	PSHUFB   X5, X1
	MOVOU    X0, (R8)(R10*4)
	MOVOU    X1, (R9)(R11*4)
	ADDQ     DX, R10
	ADDQ     DI, R11
	ADDQ     $16, SI
	SUBQ     $4, CX
	JGE      fours

few:
	ADDQ $4, CX

singly:
	TESTQ CX, CX
	JZ    split

value:
	MOVL (SI), AX
	MOVL AX, BX
	ANDL $0x7fffffff, BX
	MOVL AX, (R8)(R10*4)
	MOVL BX, (R9)(R11*4)
	MOVL $0x00800000, DX
	SUBL BX, DX
	SHRL $31, DX // 1 where the value is beyond the zero bucket
	SHRL $31, AX
	ANDL DX, AX  // 1 where it is negative besides
	SUBL AX, DX
	ADDQ AX, R11
	ADDQ DX, R10
	ADDQ $4, SI
	DECQ CX
	JNZ  value

split:
	MOVQ R10, p+40(FP)
	MOVQ R11, n+48(FP)
	RET

// func firstBeyond(values []float32, low, high float32) int
//
// Comparisons are low >= x and high <= x, which are false for NaN. Of a stride
// that has some value beyond, the masks of its parts say which is the first.
TEXT ·firstBeyond(SB), NOSPLIT, $0-40
	MOVQ values_base+0(FP), SI
	MOVQ values_len+8(FP), CX
	XORQ AX, AX // values before SI
	CMPB ·hasAVX(SB), $0
	JE   plain
	VBROADCASTSS low+24(FP), Y0
	VBROADCASTSS high+28(FP), Y1
	SUBQ $32, CX
	JLT  ended

thirtytwo:
	VCMPPS $0x1D, 0(SI), Y0, Y2
	VCMPPS $0x12, 0(SI), Y1, Y3
	VCMPPS $0x1D, 32(SI), Y0, Y4
	VCMPPS $0x12, 32(SI), Y1, Y5
	VCMPPS $0x1D, 64(SI), Y0, Y6
	VCMPPS $0x12, 64(SI), Y1, Y7
	VCMPPS $0x1D, 96(SI), Y0, Y8
	VCMPPS $0x12, 96(SI), Y1, Y9
	VORPS  Y2, Y3, Y2
	VORPS  Y4, Y5, Y4
	VORPS  Y6, Y7, Y6
	VORPS  Y8, Y9, Y8
	VORPS  Y2, Y4, Y3
	VORPS  Y6, Y8, Y7
	VORPS  Y3, Y7, Y3
	VMOVMSKPS Y3, DX
	TESTL  DX, DX
	JNZ    among
	ADDQ   $32, AX
	ADDQ   $128, SI
	SUBQ   $32, CX
	JGE    thirtytwo

ended:
	ADDQ $32, CX
	VZEROUPPER
	JMP  singly

among:
	VMOVMSKPS Y2, DX
	VMOVMSKPS Y4, BX
	SHLL $8, BX
	ORL  BX, DX
	VMOVMSKPS Y6, BX
	SHLL $16, BX
	ORL  BX, DX
	VMOVMSKPS Y8, BX
	SHLL $24, BX
	ORL  BX, DX
	BSFL DX, DX
	ADDQ DX, AX
	VZEROUPPER
	MOVQ AX, ret+32(FP)
	RET

plain:
	MOVSS  low+24(FP), X0
	SHUFPS $0, X0, X0
	MOVSS  high+28(FP), X1
	SHUFPS $0, X1, X1
	SUBQ   $8, CX
	JLT    few

eight:
	MOVUPS 0(SI), X2
	MOVUPS 16(SI), X3
	MOVAPS X1, X4
	MOVAPS X1, X5
	CMPPS  X2, X4, $2 // high <= x
	CMPPS  X3, X5, $2
	CMPPS  X0, X2, $2 // x <= low
	CMPPS  X0, X3, $2
	ORPS   X4, X2
	ORPS   X5, X3
	MOVMSKPS X2, DX
	MOVMSKPS X3, BX
	SHLL   $4, BX
	ORL    BX, DX
	JNZ    here
	ADDQ   $8, AX
	ADDQ   $32, SI
	SUBQ   $8, CX
	JGE    eight

few:
	ADDQ $8, CX

singly:
	MOVSS low+24(FP), X0
	MOVSS high+28(FP), X1

one:
	TESTQ CX, CX
	JZ    reached
	MOVSS (SI), X2
	MOVAPS X1, X4
	CMPSS X2, X4, $2
	CMPSS X0, X2, $2
	ORPS  X4, X2
	MOVMSKPS X2, DX
	ANDL  $1, DX
	JNZ   reached
	INCQ  AX
	ADDQ  $4, SI
	DECQ  CX
	JMP   one

here:
	BSFL DX, DX
	ADDQ DX, AX

reached:
	MOVQ AX, ret+32(FP)
	RET

// func lanesOf(values []float32, greatest, least *[8]float32)
//
// The extreme comes second in each comparison, and so stays where the value is NaN.
TEXT ·lanesOf(SB), NOSPLIT, $0-40
	MOVQ values_base+0(FP), SI
	MOVQ values_len+8(FP), CX
	MOVQ greatest+24(FP), DI
	MOVQ least+32(FP), R8
	SHRQ $3, CX
	JZ   known
	CMPB ·hasAVX(SB), $0
	JE   halves
	VMOVUPS (DI), Y0
	VMOVUPS (R8), Y1
	VMOVAPS Y0, Y2
	VMOVAPS Y1, Y3
	SHRQ $1, CX
	JNC  two
	VMOVUPS (SI), Y4
	VMAXPS  Y0, Y4, Y0
	VMINPS  Y1, Y4, Y1
	ADDQ    $32, SI

two:
	TESTQ CX, CX
	JZ    joined

sixteen:
	VMOVUPS 0(SI), Y4
	VMOVUPS 32(SI), Y5
	VMAXPS  Y0, Y4, Y0
	VMINPS  Y1, Y4, Y1
	VMAXPS  Y2, Y5, Y2
	VMINPS  Y3, Y5, Y3
	ADDQ    $64, SI
	DECQ    CX
	JNZ     sixteen

joined:
	VMAXPS  Y0, Y2, Y0
	VMINPS  Y1, Y3, Y1
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, (R8)
	VZEROUPPER
	RET

halves:
	MOVUPS 0(DI), X0
	MOVUPS 16(DI), X1
	MOVUPS 0(R8), X2
	MOVUPS 16(R8), X3

eight:
	MOVUPS 0(SI), X4
	MOVAPS X4, X5
	MAXPS  X0, X4
	MOVAPS X4, X0
	MINPS  X2, X5
	MOVAPS X5, X2
	MOVUPS 16(SI), X4
	MOVAPS X4, X5
	MAXPS  X1, X4
	MOVAPS X4, X1
	MINPS  X3, X5
	MOVAPS X5, X3
	ADDQ   $32, SI
	DECQ   CX
	JNZ    eight
	MOVUPS X0, 0(DI)
	MOVUPS X1, 16(DI)
	MOVUPS X2, 0(R8)
	MOVUPS X3, 16(R8)

known:
	RET

// func markActive(marks []uint8, states []oona.State)
TEXT ·markActive(SB), NOSPLIT, $0-48
	MOVQ marks_base+0(FP), DI
	MOVQ states_base+24(FP), SI
	MOVQ states_len+32(FP), CX
	LEAQ ·activeMarks(SB), R8
	CMPB ·canShuffle(SB), $0
	JE   state1
	MOVOU (R8), X1
	SUBQ $16, CX
	JLT  few

states16:
	MOVOU  (SI), X2
	MOVOU  X1, X0
	PSHUFB X2, X0
	MOVOU  X0, (DI)
	ADDQ   $16, SI
	ADDQ   $16, DI
	SUBQ   $16, CX
	JGE    states16

few:
	ADDQ $16, CX

state1:
	TESTQ CX, CX
	JZ    marked
	MOVBLZX (SI), AX
	ANDL    $15, AX
	MOVBLZX (R8)(AX*1), AX
	MOVB    AX, (DI)
	INCQ    SI
	INCQ    DI
	DECQ    CX
	JMP     state1

marked:
	RET

// func countMarkedNaN32(values []float32, marks []uint8) int
//
// Masks of 32 comparisons are packed into as many bytes, put into order, and those
// that are marked subtracted, as each is -1.
TEXT ·countMarkedNaN32(SB), NOSPLIT, $0-56
	MOVQ  values_base+0(FP), SI
	MOVQ  values_len+8(FP), CX
	MOVQ  marks_base+24(FP), DI
	VMOVDQU ·inOrder(SB), Y5
	VPXOR Y0, Y0, Y0
	SHRQ  $5, CX
	JZ    summed

marks32:
	VMOVUPS   0(SI), Y1
	VMOVUPS   32(SI), Y2
	VMOVUPS   64(SI), Y3
	VMOVUPS   96(SI), Y4
	VCMPPS    $3, Y1, Y1, Y1
	VCMPPS    $3, Y2, Y2, Y2
	VCMPPS    $3, Y3, Y3, Y3
	VCMPPS    $3, Y4, Y4, Y4
	VPACKSSDW Y2, Y1, Y1
	VPACKSSDW Y4, Y3, Y3
	VPACKSSWB Y3, Y1, Y1
	VPERMD    Y1, Y5, Y1
	VPAND     (DI), Y1, Y1
	VPSUBB    Y1, Y0, Y0
	ADDQ      $128, SI
	ADDQ      $32, DI
	DECQ      CX
	JNZ       marks32

summed:
	VPXOR  Y2, Y2, Y2
	VPSADBW Y2, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPADDQ X1, X0, X0
	VMOVQ  X0, AX
	VZEROUPPER
	MOVQ   AX, ret+48(FP)
	RET

// func prefetchExtremes(list []extreme)
TEXT ·prefetchExtremes(SB), NOSPLIT, $0-24
	MOVQ list_base+0(FP), SI
	MOVQ list_len+8(FP), CX
	SHLQ $4, CX // a seed, a value and an offset
	ADDQ SI, CX

entries:
	CMPQ       SI, CX
	JGE        wanted
	PREFETCHT0 (SI)
	ADDQ       $64, SI
	JMP        entries

wanted:
	RET

// func prefetch(counts []uint32)
TEXT ·prefetch(SB), NOSPLIT, $0-24
	MOVQ counts_base+0(FP), SI
	MOVQ counts_len+8(FP), CX
	LEAQ (SI)(CX*4), DI

line:
	CMPQ       SI, DI
	JGE        asked
	PREFETCHT0 (SI)
	ADDQ       $64, SI
	JMP        line

asked:
	RET
