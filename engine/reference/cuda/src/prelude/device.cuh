// What kernels need of the machine, for GPUs: numbers of 16 and 8 bits and the tensor cores, by
// instruction. No header of the toolkit is included, so that the compiler library is enough.
// The emulator has the same names in host.hpp.
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef unsigned char u8;

#define INFINITY __int_as_float(0x7f800000)
#define KERNEL extern "C" __global__ void

struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float to_float(f16 x) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(x.bits));
    return out;
}

__device__ __forceinline__ void store(float *at, float x) { *at = x; }
__device__ __forceinline__ void store(bf16 *at, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(at->bits) : "f"(x)); }
__device__ __forceinline__ void store(f16 *at, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(at->bits) : "f"(x)); }

// Two 16-bit floats in one word, the first in the lower half.
__device__ __forceinline__ u32 pack(float low, float high) {
    u32 out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

// The nearest 8-bit float (E4M3); what is larger becomes the largest.
__device__ __forceinline__ u8 to_fp8(float x) {
#if __CUDA_ARCH__ >= 890
    u16 out;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(out) : "f"(0.f), "f"(x));
    return (u8)out;
#else
    if (x != x) return 0x7f;
    u8 sign = __float_as_uint(x) >> 31 ? 0x80 : 0;
    float size = fminf(fabsf(x), 448.f);
    if (size < 0.015625f) return sign | (u8)rintf(size * 512.f);
    u32 bits = __float_as_uint(size);
    u32 rounded = bits + 0x7ffff + ((bits >> 20) & 1);
    u32 code = ((rounded >> 23) - 120) << 3 | ((rounded >> 20) & 7);
    return sign | (u8)min(code, 0x7eu);
#endif
}

// Two 8-bit floats to two 16-bit floats; exact.
__device__ __forceinline__ u32 widen_fp8(u32 two) {
#if __CUDA_ARCH__ >= 890
    u32 out;
    u16 in = (u16)two;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(in));
    return out;
#else
    // Exponent and mantissa move to where a 16-bit float has them; its bias is larger by 8.
    u32 halves[2];
    for (int i = 0; i < 2; i++) {
        u32 code = (two >> (8 * i)) & 0xff;
        u16 bits = (u16)((code & 0x7f) << 7);
        float value;
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
        value *= code & 0x80 ? -256.f : 256.f;
        if ((code & 0x7f) == 0x7f) value = __int_as_float(0x7fc00000);
        u16 out;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(value));
        halves[i] = out;
    }
    return halves[0] | halves[1] << 16;
#endif
}

// Two 8-bit integers to two 16-bit floats; exact. x + 128 is the low byte of 1024 + x + 128,
// whose high byte is 0x64.
__device__ __forceinline__ u32 widen_int8(u32 two) {
    u32 magic = __byte_perm(two ^ 0x8080u, 0x6464u, 0x5140), base = 0x64806480u, out;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(magic), "r"(base));
    return out;
}

// d += a b on tensor cores: a has 16 rows of 16, b 8 columns of 16, in 16-bit floats.
__device__ __forceinline__ void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Sixteen bytes that are read once: they need not stay in the first cache.
__device__ __forceinline__ uint4 stream_load(const uint4 *at) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(at));
    return v;
}
