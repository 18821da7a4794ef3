Rails.application.routes.draw do
  root "home#show"
  get "live/token", to: "live_tokens#show"
  post "login", to: "sessions#create"
  post "logout", to: "sessions#destroy"
  post "orders/:id/pay", to: "orders#pay", id: /\d+/
end
