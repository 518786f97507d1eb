// Examples of the landscape explorer: each teaches one thing.

export const PRESETS = [
  { name: "Langevin against descent", lesson: "Descent stops in the nearest mode; the noise of Langevin dynamics " +
      "lets it leave, and visit all three modes in proportion to their density.",
    settings: { energy: "mixture", x: -0.3, y: 0.2, speed: 4, walks: [
      { sampler: "gradient descent", step_size: 0.1 }, { sampler: "Langevin", step_size: 0.1 }] } },
  { name: "A step too large", lesson: "The curvature along y is 12, so descent converges only for step sizes below " +
      "2/12: 0.05 is smooth, 0.16 zigzags, 0.18 diverges, and a guard then rejects every step.",
    settings: { energy: "quadratic", x: -2.2, y: 2, speed: 3, walks: [
      { sampler: "gradient descent", step_size: 0.05 }, { sampler: "gradient descent", step_size: 0.16 },
      { sampler: "gradient descent", step_size: 0.18 }, { sampler: "guarded descent", step_size: 0.18 }] } },
  { name: "Momentum in a valley", lesson: "On the flat floor of a valley the gradient is small: descent creeps, " +
      "while Nesterov's method keeps its velocity and arrives.",
    settings: { energy: "banana", x: -1.6, y: 4.6, speed: 12, walks: [
      { sampler: "gradient descent", step_size: 0.006 }, { sampler: "Nesterov", step_size: 0.006 }] } },
  { name: "HMC against MALA", lesson: "MALA walks at random along the banana; HMC follows its curve for 8 gradient " +
      "steps before it accepts or rejects, and explores it sooner.",
    settings: { energy: "banana", x: -1.2, y: 1.6, speed: 6, walks: [
      { sampler: "MALA", step_size: 0.02 }, { sampler: "HMC", step_size: 0.08 }] } },
  { name: "Bias without rejection", lesson: "With a large step size, Langevin dynamics samples a density that is too " +
      "wide, however long it runs; MALA rejects half of its proposals and samples the right one.",
    settings: { energy: "mixture", x: -0.3, y: 0.2, speed: 500, walks: [
      { sampler: "Langevin", step_size: 0.8 }, { sampler: "MALA", step_size: 0.8 }] } },
  { name: "Temperature and a barrier", lesson: "The barrier has height 4: a cold walk stays in its well, a warm one " +
      "crosses now and then, a hot one hardly notices it.",
    settings: { energy: "double well", x: 1, y: 0, speed: 30, walks: [0.4, 1.2, 4].map((temperature) =>
      ({ sampler: "MALA", step_size: 0.06, temperature })) } },
];
