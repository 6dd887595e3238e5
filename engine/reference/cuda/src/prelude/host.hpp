// What kernels need of the machine, for the emulator: the names of device.cuh in plain C++, and
// a block as cooperating stacks. A thread runs until it meets a barrier; a warp's exchange is a
// barrier of its 32 lanes. A barrier that not all threads reach is an error, as it should be.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned short u16;
typedef unsigned char u8;

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#undef INFINITY
#define INFINITY (__builtin_inff())
#define KERNEL static void

struct Three {
    u32 x, y, z;
};
struct uint2 {
    u32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
struct float2 {
    float x, y;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }

static Three threadIdx, blockIdx, blockDim, gridDim;

// --- A block of threads, each with a stack of its own.

namespace block {
enum State { READY, WARP, BLOCK, DONE };
struct Thread {
    ucontext_t context;
    State state;
    u32 exchanges;
};
static std::vector<Thread> threads;
static char *stacks;
static ucontext_t scheduler;
static u32 current;
static void (*body)(void *);
static void *body_data;
static const size_t STACK = 64 * 1024;
struct Slot {
    u32 words[8];
};
// Two sets, used in turn: no lane can be more than one exchange ahead of another.
static Slot slots[2][1024];

static void entry() {
    body(body_data);
    threads[current].state = DONE;
    swapcontext(&threads[current].context, &scheduler);
}

static void wait(State state) {
    u32 me = current;
    threads[me].state = state;
    swapcontext(&threads[me].context, &scheduler);
    current = me;
}

// Publishes a lane's words; returns the slots of its warp once all lanes have.
static const Slot *exchange(const void *words, size_t bytes) {
    u32 me = current, set = threads[me].exchanges++ & 1;
    memcpy(slots[set][me].words, words, bytes);
    wait(WARP);
    return &slots[set][me & ~31u];
}

static bool release(u32 from, u32 to, State state) {
    for (u32 i = from; i < to; i++)
        if (threads[i].state != state) return false;
    for (u32 i = from; i < to; i++) threads[i].state = READY;
    return true;
}

static const char *run(u32 count) {
    if (threads.size() < count) {
        threads.resize(count);
        free(stacks);
        stacks = (char *)malloc(count * STACK);
    }
    for (u32 i = 0; i < count; i++) {
        Thread &t = threads[i];
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = stacks + i * STACK;
        t.context.uc_stack.ss_size = STACK;
        t.context.uc_link = &scheduler;
        makecontext(&t.context, entry, 0);
        t.state = READY, t.exchanges = 0;
    }
    for (;;) {
        bool progress = false;
        u32 done = 0;
        for (u32 i = 0; i < count; i++) {
            if (threads[i].state == READY) {
                progress = true;
                current = i;
                threadIdx = {i % blockDim.x, i / blockDim.x, 0};
                swapcontext(&scheduler, &threads[i].context);
            }
            if ((i & 31) == 31 || i + 1 == count) progress |= release(i & ~31u, i + 1, WARP);
        }
        for (u32 i = 0; i < count; i++) done += threads[i].state == DONE;
        if (done == count) return nullptr;
        if (!progress && !release(0, count, BLOCK)) return "a barrier that not all threads of a block or warp reach";
    }
}
} // namespace block

static inline void __syncthreads() { block::wait(block::BLOCK); }
static inline void __syncwarp() { block::wait(block::WARP); }

template <class T> static inline T from_lane(T x, u32 lane) {
    static_assert(sizeof(T) <= 32, "an exchange has 32 bytes");
    const block::Slot *slots = block::exchange(&x, sizeof(T));
    memcpy(&x, slots[lane].words, sizeof(T));
    return x;
}
template <class T> static inline T __shfl_xor_sync(u32, T x, int mask) { return from_lane(x, (block::current & 31) ^ mask); }
template <class T> static inline T __shfl_sync(u32, T x, int lane) { return from_lane(x, lane & 31); }
template <class T> static inline T __shfl_down_sync(u32, T x, int by) {
    u32 lane = block::current & 31;
    return from_lane(x, lane + by < 32 ? lane + by : lane);
}
template <class T> static inline T __shfl_up_sync(u32, T x, int by) {
    u32 lane = block::current & 31;
    return from_lane(x, lane >= (u32)by ? lane - by : lane);
}

// --- Bits and numbers.

static inline float __uint_as_float(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
static inline u32 __float_as_uint(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static inline float __int_as_float(int bits) { return __uint_as_float((u32)bits); }
static inline u32 __byte_perm(u32 x, u32 y, u32 select) {
    u64 both = (u64)y << 32 | x;
    u32 out = 0;
    for (int i = 0; i < 4; i++) out |= (u32)((both >> (8 * (select >> (4 * i) & 7))) & 0xff) << (8 * i);
    return out;
}
static inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
#define __expf(x) expf(x)
static inline int min(int a, int b) { return a < b ? a : b; }
static inline u32 min(u32 a, u32 b) { return a < b ? a : b; }
static inline u64 min(u64 a, u64 b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline u32 max(u32 a, u32 b) { return a > b ? a : b; }
template <class T> static inline T atomicAdd(T *at, T x) {
    T old = *at;
    *at = old + x;
    return old;
}
template <class T> static inline T atomicMin(T *at, T x) {
    T old = *at;
    if (x < old) *at = x;
    return old;
}
static inline u32 __float2uint_rd(float x) { return (u32)floorf(x); }

struct bf16 {
    u16 bits;
};
struct f16 {
    u16 bits;
};

static inline float to_float(float x) { return x; }
static inline float to_float(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
static inline float to_float(f16 x) {
    u32 sign = (u32)(x.bits & 0x8000) << 16, exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) {
        float size = ldexpf((float)mantissa, -24);
        return sign ? -size : size;
    }
    return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

static inline void store(float *at, float x) { *at = x; }
static inline void store(bf16 *at, float x) {
    u32 bits = __float_as_uint(x);
    at->bits = x != x ? 0x7fff : (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline void store(f16 *at, float x) {
    u32 sign = __float_as_uint(x) >> 16 & 0x8000;
    float size = fabsf(x);
    if (x != x) {
        at->bits = 0x7fff;
    } else if (size >= 65520.f) {
        at->bits = (u16)(sign | 0x7c00);
    } else if (size < 6.103515625e-05f) {
        at->bits = (u16)(sign | (u32)nearbyintf(ldexpf(size, 24)));
    } else {
        u32 bits = __float_as_uint(size);
        bits += 0xfff + (bits >> 13 & 1);
        at->bits = (u16)(sign | ((bits >> 13) - (112 << 10)));
    }
}
static inline u32 pack(float low, float high) {
    f16 a, b;
    store(&a, low);
    store(&b, high);
    return a.bits | (u32)b.bits << 16;
}
static inline u8 to_fp8(float x) {
    if (x != x) return 0x7f;
    u8 sign = __float_as_uint(x) >> 31 ? 0x80 : 0;
    float size = fminf(fabsf(x), 448.f);
    if (size < 0.015625f) return sign | (u8)nearbyintf(size * 512.f);
    u32 bits = __float_as_uint(size);
    bits += 0x7ffff + (bits >> 20 & 1);
    u32 code = ((bits >> 23) - 120) << 3 | (bits >> 20 & 7);
    return sign | (u8)min(code, 0x7eu);
}
static inline float fp8_value(u32 code) {
    int exponent = code >> 3 & 15;
    float mantissa = (float)(code & 7);
    float size = (code & 0x7f) == 0x7f ? NAN : exponent ? ldexpf(1.f + mantissa / 8.f, exponent - 7) : ldexpf(mantissa, -9);
    return code & 0x80 ? -size : size;
}
static inline u32 widen_fp8(u32 two) { return pack(fp8_value(two & 0xff), fp8_value(two >> 8 & 0xff)); }
static inline u32 widen_int8(u32 two) { return pack((float)(signed char)(two & 0xff), (float)(signed char)(two >> 8 & 0xff)); }
static inline uint4 stream_load(const uint4 *at) { return *at; }

// d += a b as mma.sync.m16n8k16 places its operands: a lane (r, c) = (lane / 4, lane % 4) has of a
// the rows r and r + 8 in columns 2c, 2c + 1 and 2c + 8, 2c + 9; of b the rows 2c, 2c + 1 and 2c + 8,
// 2c + 9 in column r; of d the rows r and r + 8 in columns 2c, 2c + 1.
template <class NUMBER> static inline void mma_of(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    u32 words[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const block::Slot *lanes = block::exchange(words, sizeof(words));
    auto half = [](u32 word, int i) { return to_float(NUMBER{(u16)(i ? word >> 16 : word)}); };
    u32 lane = block::current & 31, r = lane >> 2, c = lane & 3;
    for (int i = 0; i < 4; i++) {
        u32 high = i >> 1, column = 2 * c + (i & 1);
        float sum = 0.f;
        for (u32 k = 0; k < 16; k++) {
            const u32 *from_a = lanes[4 * r + (k & 7) / 2].words, *from_b = lanes[4 * column + (k & 7) / 2].words;
            sum += half(from_a[high + 2 * (k >> 3)], k & 1) * half(from_b[4 + (k >> 3)], k & 1);
        }
        d[i] += sum;
    }
}

static inline void mma(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_of<f16>(d, a, b0, b1); }
static inline void mma_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_of<bf16>(d, a, b0, b1); }

// --- Launching: arguments come as the driver takes them, as pointers to their values.

template <class... A, size_t... I> static void invoke(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*(std::remove_const_t<A> *)args[I]...);
}

template <class... A> static const char *launch(void (*kernel)(A...), u32 count, const u32 *grid, const u32 *threads, void **args) {
    if (count != sizeof...(A)) return "another number of arguments than the kernel takes";
    struct Call {
        void (*kernel)(A...);
        void **args;
    } call = {kernel, args};
    block::body = [](void *data) {
        Call *call = (Call *)data;
        invoke(call->kernel, call->args, std::index_sequence_for<A...>{});
    };
    block::body_data = &call;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads[0], threads[1], threads[2]};
    if (blockDim.z != 1 || blockDim.x * blockDim.y > 1024) return "a block of this shape";
    for (u32 z = 0; z < grid[2]; z++)
        for (u32 y = 0; y < grid[1]; y++)
            for (u32 x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                if (const char *error = block::run(blockDim.x * blockDim.y)) return error;
            }
    return nullptr;
}
