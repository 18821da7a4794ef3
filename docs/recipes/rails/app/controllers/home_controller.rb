class HomeController < ApplicationController
  def show
    render current_login ? :show : :login
  end
end
